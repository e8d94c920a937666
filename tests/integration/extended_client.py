"""A client with extended headers and base:allocation, which no packaged library of Debian 12 can be."""
import struct

from raw_client import ACK, FLUSH, READ, TRIM, WRITE, WRITE_ZEROES, RawClient, go, option

STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS = 8, 9, 10, 11
META_CONTEXT = 4
BLOCK_STATUS = 7
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = 1, 2, 4, 8, 16, 32
HOLE, ZERO = 1, 2

EXTENDED_REQUEST, EXTENDED_REPLY = 0x21E41C71, 0x6E8A278C
DONE = 1
NONE, OFFSET_DATA, OFFSET_HOLE, BLOCK_STATUS_EXT, ERROR, ERROR_OFFSET = 0, 1, 2, 6, 0x8001, 0x8002

SEND_DF, BLOCK_STATUS_PAYLOAD = 1 << 7, 1 << 12


def meta_context(number, *queries, name=b""):
    """The option that lists or selects metadata contexts."""
    asked = b"".join(struct.pack(">I", len(query)) + query for query in queries)
    return option(number, struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries)) + asked)


class NbdError(Exception):
    def __init__(self, number, text):
        super().__init__(f"{number}: {text}")
        self.number = number
        self.text = text


class ExtendedClient(RawClient):
    """In transmission, with extended headers and, unless told otherwise, base:allocation."""

    def __init__(self, server, contexts=(b"base:allocation",), name=b""):
        super().__init__(server)
        self.cookie = 0
        self.send(option(EXTENDED_HEADERS))
        self._expect_ack()
        self.contexts = {}
        if contexts:
            self.send(meta_context(SET_META_CONTEXT, *contexts, name=name))
            while (answer := self.option_reply())[0] == META_CONTEXT:
                number, = struct.unpack(">I", answer[1][:4])
                self.contexts[answer[1][4:]] = number
            if answer[0] != ACK:
                raise AssertionError(f"SET_META_CONTEXT was answered {answer}")
        self.send(go(name))
        self.size, self.flags = self.finish_go()

    def _expect_ack(self):
        kind, data = self.option_reply()
        if kind != ACK:
            raise AssertionError(f"the option was answered {kind:#x} {data!r}")

    # Requests

    def request(self, what, offset=0, length=0, flags=0, payload=b""):
        """Sends a request; its cookie."""
        self.cookie += 1
        self.send(struct.pack(">IHHQQQ", EXTENDED_REQUEST, flags, what, self.cookie, offset, length) + payload)
        return self.cookie

    def chunk(self):
        magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQQ", self.receive(32))
        if magic != EXTENDED_REPLY:
            raise AssertionError(f"{magic:#x} is not the magic of an extended reply")
        return flags, kind, cookie, offset, self.receive(length)

    def chunks(self, cookie, offset):
        """The (kind, payload) of every chunk of the one request that is under way."""
        received = []
        flags = 0
        while not flags & DONE:
            flags, kind, answered, told, payload = self.chunk()
            if (answered, told) != (cookie, offset):
                raise AssertionError(f"request {cookie} at {offset} was answered as {answered} at {told}")
            received.append((kind, payload))
        kind, payload = received[-1]
        if kind in (ERROR, ERROR_OFFSET):
            number, length = struct.unpack(">IH", payload[:6])
            raise NbdError(number, payload[6:6 + length].decode())
        return received

    def ask(self, what, offset=0, length=0, flags=0, payload=b""):
        return self.chunks(self.request(what, offset, length, flags, payload), offset)

    # Commands

    def read(self, offset, length, flags=0):
        """The bytes, and how many of them came as data."""
        data, carried, at = bytearray(length), 0, offset
        for kind, payload in self.ask(READ, offset, length, flags):
            if kind == NONE and length == 0:
                continue
            begin, = struct.unpack(">Q", payload[:8])
            if begin != at:
                raise AssertionError(f"a chunk at {begin} where {at} was expected")
            if kind == OFFSET_DATA:
                data[begin - offset:begin - offset + len(payload) - 8] = payload[8:]
                at += len(payload) - 8
                carried += len(payload) - 8
            elif kind == OFFSET_HOLE:
                at += struct.unpack(">I", payload[8:])[0]
            else:
                raise AssertionError(f"a chunk of type {kind} in the answer to a read")
        if at != offset + length:
            raise AssertionError(f"a read of {length} bytes was answered with {at - offset}")
        return bytes(data), carried

    def write(self, offset, data, flags=0):
        self._simply(WRITE, offset, len(data), flags | PAYLOAD_LEN, data)

    def trim(self, offset, length, flags=0):
        self._simply(TRIM, offset, length, flags)

    def zeroes(self, offset, length, flags=0):
        self._simply(WRITE_ZEROES, offset, length, flags)

    def flush(self):
        self._simply(FLUSH)

    def block_status(self, offset, length, flags=0):
        """[(length, state)] as one answer gives it."""
        return self._extents(self.ask(BLOCK_STATUS, offset, length, flags))

    def block_status_by_payload(self, offset, length, *contexts, flags=0):
        payload = struct.pack(f">Q{len(contexts)}I", length, *contexts)
        return self._extents(self.ask(BLOCK_STATUS, offset, len(payload), flags | PAYLOAD_LEN, payload))

    def whole_map(self):
        """[(length, state)] of the whole export, asked for until it is complete, neighbours joined."""
        found, at = [], 0
        while at < self.size:
            for length, state in self.block_status(at, self.size - at):
                if found and found[-1][1] == state:
                    found[-1] = (found[-1][0] + length, state)
                else:
                    found.append((length, state))
                at += length
        return found

    def _simply(self, *asked):
        received = self.ask(*asked)
        if received != [(NONE, b"")]:
            raise AssertionError(f"answered with {received}")

    @staticmethod
    def _extents(received):
        [(kind, payload)] = received
        _, count = struct.unpack(">II", payload[:8])
        if kind != BLOCK_STATUS_EXT or len(payload) != 8 + 16 * count:
            raise AssertionError(f"a chunk of type {kind} with {len(payload)} bytes for {count} extents")
        return [struct.unpack_from(">QQ", payload, 8 + 16 * i) for i in range(count)]
