"""Changes an attached NBD device over the kernel's netlink interface, which nbd-client has no option for.

    reconfigure.py keep INDEX SECONDS     hold requests that long while no connection is left, instead of failing them
    reconfigure.py connect INDEX URI      put a new connection in a dead one's place

The messages are those of <linux/genetlink.h> and <linux/nbd-netlink.h>.
"""
import os
import socket
import struct
import sys

import nbd

NETLINK_GENERIC = 16
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR, NLA_F_NESTED = 1, 4, 2, 0x8000
CONTROLLER, GETFAMILY, FAMILY_ID, FAMILY_NAME = 16, 3, 1, 2
RECONFIGURE = 3
INDEX, SOCKETS, DEAD_CONNECTION_TIMEOUT = 1, 7, 8
SOCKET_ITEM, SOCKET_FD = 1, 1


def attribute(kind, value):
    raw = struct.pack("=HH", 4 + len(value), kind) + value
    return raw + bytes(-len(raw) % 4)


def ask(link, family, command, attributes):
    payload = struct.pack("=BBH", command, 1, 0) + attributes
    link.send(struct.pack("=IHHII", 16 + len(payload), family, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + payload)
    answers = []
    while True:
        received = link.recv(65536)
        while received:
            length, kind = struct.unpack_from("=IH", received)
            if kind == NLMSG_ERROR:
                code = struct.unpack_from("=i", received, 16)[0]
                if code:
                    raise OSError(-code, os.strerror(-code))
                return answers
            answers.append(received[20:length])
            received = received[(length + 3) & ~3:]


def family_of(link, name):
    found = ask(link, CONTROLLER, GETFAMILY, attribute(FAMILY_NAME, name + b"\0"))[0]
    while found:
        length, kind = struct.unpack_from("=HH", found)
        if kind == FAMILY_ID:
            return struct.unpack_from("=H", found, 4)[0]
        found = found[(length + 3) & ~3:]
    raise LookupError(name)


def main(what, index, value):
    attributes = attribute(INDEX, struct.pack("=I", int(index)))
    if what == "keep":
        attributes += attribute(DEAD_CONNECTION_TIMEOUT, struct.pack("=Q", int(value)))
    else:
        client = nbd.NBD()
        # The kernel's driver reads simple replies only.
        client.set_request_structured_replies(False)
        client.connect_uri(value)
        item = attribute(SOCKET_FD, struct.pack("=I", client.aio_get_fd()))
        attributes += attribute(SOCKETS | NLA_F_NESTED, attribute(SOCKET_ITEM | NLA_F_NESTED, item))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as link:
        link.bind((0, 0))
        ask(link, family_of(link, b"nbd"), RECONFIGURE, attributes)
    sys.stdout.flush()
    os._exit(0)  # libnbd would tell the server goodbye, on a connection that is the kernel's now.


if __name__ == "__main__":
    main(*sys.argv[1:])
