"""Whether the server lets in a client that comes from a certain address of this machine."""
import socket

import served

GREETING = b"NBDMAGIC"


def greeted(port, source="127.0.0.1", to="127.0.0.1"):
    """The first bytes that it gets, or none."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(served.PATIENCE_S)
        client.bind((source, 0))
        try:
            client.connect((to, port))
            return client.recv(8)
        except ConnectionResetError:
            return b""
