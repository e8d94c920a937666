"""An NBD client that does exactly what it is told, byte by byte: for what the libraries are too well-behaved to do."""
import socket
import struct

GREETING = b"NBDMAGIC" + b"IHAVEOPT"
OPTION_REPLY = 0x3E889045565A9
REQUEST, SIMPLE_REPLY = 0x25609513, 0x67446698

FIXED_NEWSTYLE, NO_ZEROES = 1, 2
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO = 1, 2, 3, 5, 6, 7
ACK, SERVER, INFO_REPLY = 1, 2, 3
ERR_UNSUP, ERR_INVALID, ERR_TLS_REQD = 0x80000001, 0x80000003, 0x80000005
ERR_UNKNOWN, ERR_SHUTDOWN = 0x80000006, 0x80000007
READ, WRITE, DISC, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6
FUA, NO_HOLE = 1, 2
EPERM, EIO, EINVAL, ENOSPC, ESHUTDOWN = 1, 5, 22, 28, 108


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def go(name=b"", infos=()):
    return option(GO, struct.pack(">I", len(name)) + name + struct.pack(f">H{len(infos)}H", len(infos), *infos))


def request(what, cookie=0, offset=0, length=0, flags=0, payload=b""):
    return struct.pack(">IHHQQI", REQUEST, flags, what, cookie, offset, length) + payload


def write(data, cookie=0, offset=0, flags=0):
    return request(WRITE, cookie, offset, len(data), flags, data)


class RawClient:
    def __init__(self, server, flags=FIXED_NEWSTYLE | NO_ZEROES, receive_buffer=None, source=None):
        """Connects, from this address if one is given, and answers the greeting; flags None: not even that."""
        family, address = server.address
        self.socket = socket.socket(family)
        self.socket.settimeout(20)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        if flags is not None:
            self.greeting = self.receive(18)
            self.send(struct.pack(">I", flags))

    @classmethod
    def in_transmission(cls, server, **how):
        client = cls(server, **how)
        client.send(go())
        client.finish_go()
        return client

    def finish_go(self):
        """Reads the answers to a GO; the size and the flags of the export."""
        size = flags = None
        while True:
            kind, data = self.option_reply()
            if kind == ACK:
                return size, flags
            if kind != INFO_REPLY:
                raise AssertionError(f"GO was answered {kind:#x} {data!r}")
            if data[:2] == b"\0\0":
                size, flags = struct.unpack(">QH", data[2:])

    # Bytes

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, length):
        data = bytearray()
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise EOFError(f"the server closed after {len(data)} of {length} bytes")
            data += more
        return bytes(data)

    def receive_rest(self):
        """Everything until the server closes."""
        data = bytearray()
        try:
            while more := self.socket.recv(1 << 16):
                data += more
        except ConnectionResetError:
            pass  # It closed while bytes of ours were on their way.
        return bytes(data)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Messages

    def option_reply(self):
        magic, _, kind, length = struct.unpack(">QIII", self.receive(20))
        if magic != OPTION_REPLY:
            raise AssertionError(f"{magic:#x} is not the magic of an option's reply")
        return kind, self.receive(length)

    def reply(self, payload=0):
        """(cookie, error, data) of the next reply; its data has `payload` bytes if there is no error."""
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        if magic != SIMPLE_REPLY:
            raise AssertionError(f"{magic:#x} is not the magic of a simple reply")
        return cookie, error, self.receive(payload) if error == 0 else b""

    def ask(self, what, payload=0, **fields):
        self.send(request(what, **fields))
        return self.reply(payload)
