"""Four connections, each with several requests under way, that change a disk at random and keep its history."""
import selectors
import socket
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "integration"))

import raw_client  # noqa: E402
from sector_history import FLUSH, SECTOR, TRIM, WRITE, ZERO, Change  # noqa: E402

CLIENTS = 4
UNDER_WAY = 4  # of each client
FUA, NO_HOLE = 1, 2
COMMANDS = {WRITE: raw_client.WRITE, ZERO: raw_client.WRITE_ZEROES, TRIM: raw_client.TRIM, FLUSH: raw_client.FLUSH}

# File systems work in these, so requests of one are kept apart.
BLOCK = 8  # sectors
HOT_BLOCKS = 48
TAIL_SECTORS = 12


class Refused(Exception):
    """The server answered with an error, which nothing here gives it a reason for."""


class FourClients:
    """promised_by: "flush", "fua", or "both", which is what a client has to make changes durable by.
    durable_over_plain: whether a durable write may go where a plain one was and no flush came since. A log of
    dm-log-writes has the former before the latter, which is the wrong way round."""

    def __init__(self, path, history, chance, first_number=1, durable_over_plain=True, promised_by="both"):
        self._history = history
        self._chance = chance
        self.next_number = first_number
        self._durable_over_plain = durable_over_plain
        self._flushes = 0 if promised_by == "fua" else 16
        self._durable_share = 0 if promised_by == "flush" else 0.25
        self._sectors = len(history.held)
        self._busy = set()  # blocks
        self._unflushed = {}  # block -> the plain change that was its last
        self._poll = selectors.DefaultSelector()
        self.answers = 0
        server = SimpleNamespace(address=(socket.AF_UNIX, path))
        for _ in range(CLIENTS):
            client = raw_client.RawClient.in_transmission(server)
            client.under_way = {}  # cookie -> change
            client.received = bytearray()
            self._poll.register(client.socket, selectors.EVENT_READ, client)

    def run(self, is_over, after_answer=lambda: None):
        """Until is_over(), then for the answers to all that was asked; False if the server went away before."""
        try:
            while True:
                clients = [key.data for key in self._poll.get_map().values()]
                asking = not is_over()
                for client in clients:
                    while asking and len(client.under_way) < UNDER_WAY:
                        self._ask(client)
                if not any(client.under_way for client in clients):
                    return True
                for key, _ in self._poll.select(20) or [(None, None)]:
                    if key is None:
                        raise Refused("no answer for 20 s")
                    for change in self._answers_of(key.data):
                        self._note_answer(change)
                        after_answer()
        except (EOFError, ConnectionError):
            return False

    def _ask(self, client):
        change = self._choose()
        flags = FUA if change.durable else 0
        if change.kind == ZERO and self._chance.random() < 0.3:
            flags |= NO_HOLE
        payload = change.payload() if change.kind == WRITE else b""
        asked = raw_client.request(COMMANDS[change.kind], change.number, change.first * SECTOR,
                                   change.count * SECTOR, flags, payload)
        client.under_way[change.number] = change
        self._history.asked(change)
        client.send(asked)

    # What to ask

    def _choose(self):
        number = self.next_number
        self.next_number += 1
        kind = self._chance.choices([WRITE, ZERO, TRIM, FLUSH], [60, 14, 10, self._flushes])[0]
        if kind == FLUSH:
            change = Change(number, FLUSH, 0, 0, False)
            change.clears = {block: last for block, last in self._unflushed.items() if block not in self._busy}
            return change
        while True:
            first, count = self._place(kind)
            blocks = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
            if self._busy.isdisjoint(blocks):
                break
        durable = self._chance.random() < self._durable_share
        if durable and kind == WRITE and not self._durable_over_plain and not self._unflushed.keys().isdisjoint(blocks):
            durable = False
        change = Change(number, kind, first, count, durable)
        change.blocks = blocks
        self._busy.update(blocks)
        if not durable:
            self._unflushed.update(dict.fromkeys(blocks, change))
        return change

    def _place(self, kind):
        """Some places are asked for more often than others: so there is something to lose in them."""
        where = self._chance.random()
        if where < 0.1:
            first = self._sectors - 1 - self._chance.randrange(TAIL_SECTORS)
        elif where < 0.5:
            first = self._chance.randrange(HOT_BLOCKS * BLOCK)
        else:
            first = self._chance.randrange(self._sectors)
        if self._chance.random() < 0.4:
            first -= first % BLOCK
        longest = 24 if kind == WRITE else 64
        count = self._chance.choice([1, 1, 2, BLOCK, BLOCK, 2 * BLOCK, 1 + self._chance.randrange(longest)])
        return first, min(count, self._sectors - first)

    # What comes back

    def _answers_of(self, client):
        more = client.socket.recv(1 << 16)
        if not more:
            raise EOFError
        client.received += more
        while len(client.received) >= 16:
            _, error, cookie = struct.unpack_from(">IIQ", client.received)
            del client.received[:16]
            change = client.under_way.pop(cookie)
            if error:
                raise Refused(f"{change} was answered with error {error}")
            yield change

    def _note_answer(self, change):
        self.answers += 1
        self._history.replied(change)
        if change.kind == FLUSH:
            cleared = change.clears
        else:
            self._busy.difference_update(change.blocks)
            cleared = dict.fromkeys(change.blocks, change) if change.durable else {}
        for block, last in cleared.items():
            if change.durable or self._unflushed.get(block) is last:
                self._unflushed.pop(block, None)
