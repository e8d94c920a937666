#!/usr/bin/python3
"""An NBD client that makes load, for what fio's engine cannot: FUA, simple replies by choice, and requests that
disregard the server's block size, which it never asks for. One connection, many requests at once.

    client.py '{"path": "/run/x.sock", "rw": "randread", ...}'    prints its figures as JSON

See DEFAULTS for the settings. It costs its processor several microseconds a request: enough to compare servers on
what they cost, and each on equal terms.
"""
import json
import os
import random
import struct
import sys
import time

import servers

DEFAULTS = {"path": "", "port": 0, "export": "", "rw": "randread", "block": 4096, "depth": 1, "seconds": 1,
            "fua": False, "replies": "any", "seed": 1,
            "verify": False,  # compare what is read with the file behind the server, what is written by reading it
            "content": ""}    # that file

OPTION_REPLY, REQUEST, SIMPLE_REPLY, CHUNK = 0x3E889045565A9, 0x25609513, 0x67446698, 0x668E33EF
STRUCTURED_REPLY, GO, ACK, INFO, FIRST_ERROR = 8, 7, 1, 3, 0x80000000
READ, WRITE, DISC = 0, 1, 2
FLAG_FUA, HAS_FUA, DONE = 1, 1 << 3, 1
OFFSET_DATA, OFFSET_HOLE, ERROR_CHUNK = 1, 2, 0x8000
RECEIVE_BUFFER = 4 << 20
VERIFIED_MAX = 4096


class Unavailable(Exception):
    """The server does not offer what was asked for."""


class Connection:
    def __init__(self, settings):
        self.socket = servers.Endpoint(settings["path"], settings["port"]).connect()
        self.structured = False
        if self._receive(16) != b"NBDMAGICIHAVEOPT":
            raise RuntimeError("this is not a newstyle NBD server")
        flags = struct.unpack(">H", self._receive(2))[0] & 3
        self.socket.sendall(struct.pack(">I", flags))
        if settings["replies"] == "structured":
            self._option(STRUCTURED_REPLY, b"")
            if self._option_reply()[0] != ACK:
                raise Unavailable("structured replies are not offered")
            self.structured = True
        name = settings["export"].encode()
        self._option(GO, struct.pack(">I", len(name)) + name + b"\0\0")
        self.size = self.flags = 0
        while (answer := self._option_reply())[0] != ACK:
            if answer[0] >= FIRST_ERROR:
                raise RuntimeError(f"GO was refused: {answer[1]!r}")
            if answer[0] == INFO and answer[1][:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", answer[1][2:12])

    def _receive(self, length):
        data = bytearray()
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise EOFError("the server closed the connection")
            data += more
        return bytes(data)

    def _option(self, number, data):
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)

    def _option_reply(self):
        magic, _, kind, length = struct.unpack(">QIII", self._receive(20))
        if magic != OPTION_REPLY:
            raise RuntimeError("out of step in the handshake")
        return kind, self._receive(length)


class Replies:
    """Cuts what is received into replies: `receive()` gives the cookies that are done. Payloads are skipped, not
    copied, unless they are wanted: then `pieces` has them by cookie, each with its offset (None where the reply says
    none)."""

    def __init__(self, connection, block, wants_data=False):
        self._socket = connection.socket
        self._structured = connection.structured
        self._block = block
        self._payload = bytearray() if wants_data else None
        self._buffer = bytearray(RECEIVE_BUFFER)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._skip = 0          # bytes of a payload that are still to come
        self._current = None    # (cookie, type of chunk) whose payload that is
        self._finished = None   # its cookie, when it ends the reply
        self.reads = set()      # cookies that are reads
        self.pieces = {}

    def receive(self):
        got = self._socket.recv_into(self._view[self._filled:])
        if got == 0:
            raise EOFError("the server closed the connection")
        end, at, done = self._filled + got, 0, []
        header = 20 if self._structured else 16
        while True:
            if self._skip:
                step = min(self._skip, end - at)
                if self._payload is not None:
                    self._payload += self._view[at:at + step]
                at += step
                self._skip -= step
                if self._skip:
                    break
                if self._payload is not None:
                    self._keep_payload()
                if self._finished is not None:
                    done.append(self._finished)
                    self._finished = None
            if end - at < header:
                break
            cookie, finished = self._header(at)
            at += header
            if finished:
                if self._skip:
                    self._finished = cookie
                else:
                    done.append(cookie)
        self._buffer[:end - at] = self._buffer[at:end]
        self._filled = end - at
        return done

    def _header(self, at):
        if not self._structured:
            magic, error, cookie = struct.unpack_from(">IIQ", self._buffer, at)
            if magic != SIMPLE_REPLY or error:
                raise RuntimeError(f"reply with magic {magic:#x}, error {error}")
            if cookie in self.reads:
                self._skip, self._current = self._block, (cookie, None)
            return cookie, True
        magic, flags, kind, cookie, self._skip = struct.unpack_from(">IHHQI", self._buffer, at)
        if magic != CHUNK or kind & ERROR_CHUNK:
            raise RuntimeError(f"chunk with magic {magic:#x}, type {kind:#x}")
        self._current = cookie, kind
        return cookie, bool(flags & DONE)

    def _keep_payload(self):
        (cookie, kind), payload = self._current, bytes(self._payload)
        self._payload.clear()
        if kind is None:
            piece = None, payload
        elif kind == OFFSET_DATA:
            piece = struct.unpack(">Q", payload[:8])[0], payload[8:]
        elif kind == OFFSET_HOLE:
            offset, length = struct.unpack(">QI", payload)
            piece = offset, bytes(length)
        else:
            raise RuntimeError(f"chunk of type {kind:#x} in a read's reply")
        self.pieces.setdefault(cookie, []).append(piece)

    def data_of(self, cookie, offset):
        """All of a read of a block there, or it is an error."""
        data, found = bytearray(self._block), 0
        for at, piece in self.pieces.pop(cookie, ()):
            begin = 0 if at is None else at - offset
            if begin < 0 or begin + len(piece) > self._block:
                raise RuntimeError(f"a read of {self._block} bytes at {offset} is given {len(piece)} at {at}")
            data[begin:begin + len(piece)] = piece
            found += len(piece)
        if found != self._block:
            raise RuntimeError(f"a read of {self._block} bytes at {offset} is given {found}")
        return bytes(data)


class Load:
    def __init__(self, settings):
        self.settings = settings
        self.block, self.depth = settings["block"], settings["depth"]
        self.connection = Connection(settings)
        if settings["fua"] and not self.connection.flags & HAS_FUA:
            raise Unavailable("FUA is not offered")
        self.writing = settings["rw"] == "randwrite"
        self.content = None  # to compare reads with
        if settings["verify"] and not self.writing:
            self.content = open(settings["content"], "rb", buffering=0)
        self.compared = 0
        self.replies = Replies(self.connection, self.block, wants_data=self.content is not None)
        self.random = random.Random(settings["seed"])
        self.next_block = 0 if settings["rw"] == "read" else None  # one after another, or anywhere
        self.what = struct.pack(">IHH", REQUEST, FLAG_FUA if settings["fua"] else 0, WRITE if self.writing else READ)
        self.to_write = bytearray(self.random.randbytes(self.block))
        self.offsets = [None] * self.depth
        self.started = [0] * self.depth
        self.latencies = []
        self.written = {}

    def _request(self, slot, now):
        """Offsets in flight differ, so that what is written last is known."""
        blocks = self.connection.size // self.block
        if self.next_block is not None:
            offset = self.next_block % blocks * self.block
            self.next_block += 1
        else:
            offset = self.random.randrange(blocks) * self.block
            while offset in self.offsets:
                offset = self.random.randrange(blocks) * self.block
        self.offsets[slot], self.started[slot] = offset, now
        head = self.what + struct.pack(">QQI", slot, offset, self.block)
        if not self.writing:
            return head
        content = struct.pack(">QQ", offset, len(self.latencies)) + self.to_write[16:]
        if self.settings["verify"]:
            self.written[offset] = content
        return head + content

    def run(self):
        clock = time.perf_counter_ns
        begin = clock()
        end = begin + int(self.settings["seconds"] * 1e9)
        if not self.writing:
            self.replies.reads = set(range(self.depth))
        self.connection.socket.sendall(b"".join(self._request(slot, begin) for slot in range(self.depth)))
        in_flight = self.depth
        while in_flight:
            done = self.replies.receive()
            now = clock()
            self.latencies += [now - self.started[slot] for slot in done]
            if self.content is not None:
                self._compare(done)
            stop = now >= end or len(self.written) >= VERIFIED_MAX
            if stop:
                in_flight -= len(done)
            elif done:
                self.connection.socket.sendall(b"".join([self._request(slot, now) for slot in done]))
        took_s = (clock() - begin) / 1e9
        verified = self._verify() if self.written else self.compared
        self.connection.socket.sendall(struct.pack(">IHHQQI", REQUEST, 0, DISC, 0, 0, 0))
        return self._figures(took_s, verified)

    def _compare(self, slots):
        for slot in slots:
            offset = self.offsets[slot]
            if self.replies.data_of(slot, offset) != os.pread(self.content.fileno(), self.block, offset):
                raise RuntimeError(f"{self.block} bytes at {offset} are not what the file has there")
            self.compared += 1

    def _verify(self):
        """Reads back everything that was written. The number of blocks that were right: all, or it is an error."""
        reader = Replies(self.connection, self.block, wants_data=True)
        reader.reads = {0}
        for offset, content in self.written.items():
            self.connection.socket.sendall(struct.pack(">IHHQQI", REQUEST, 0, READ, 0, offset, self.block))
            while not reader.receive():
                pass
            if reader.data_of(0, offset) != content:
                raise RuntimeError(f"{self.block} bytes at {offset} are not what was written")
        return len(self.written)

    def _figures(self, took_s, verified):
        ordered = sorted(self.latencies)

        def percentile(percent):
            return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] / 1000

        return {"ios": len(ordered), "iops": len(ordered) / took_s, "bytes_per_s": len(ordered) * self.block / took_s,
                "p50_us": percentile(50), "p99_us": percentile(99), "p999_us": percentile(99.9),
                "verified_ios": verified}


def main():
    settings = {**DEFAULTS, **json.loads(sys.argv[1])}
    try:
        figures = Load(settings).run()
    except Unavailable as lacking:
        figures = {"unavailable": str(lacking)}
    except (EOFError, OSError, RuntimeError) as failure:
        sys.exit(str(failure))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
