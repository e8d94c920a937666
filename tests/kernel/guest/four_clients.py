"""Four connections, each with several requests under way, that change a disk at random and keep its history."""
import collections
import selectors
import socket
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "integration"))

import raw_client  # noqa: E402
from sector_history import CELL, FLUSH, TRIM, WRITE, ZERO, Change  # noqa: E402

CLIENTS = 4
UNDER_WAY = 4  # of each client
FUA, NO_HOLE = 1, 2
COMMANDS = {WRITE: raw_client.WRITE, ZERO: raw_client.WRITE_ZEROES, TRIM: raw_client.TRIM, FLUSH: raw_client.FLUSH}

# File systems work in these.
BLOCK = 4096
BLOCK_CELLS = BLOCK // CELL
# The changes of one block that are under way together have no byte in common, and are so few that the judge can go
# through all that they may make of it.
TOGETHER_MAX = 4
HOT_BLOCKS = 48
# Cells in which small changes meet: each in a block of its own, and the next one's bytes are reached as well.
CROWDED_CELLS = [block * BLOCK_CELLS + cell for block, cell in ((2, 3), (9, 7), (16, 0), (23, 5))]
CROWDED_LENGTH = 200
TAIL_CELLS = 12


class Refused(Exception):
    """The server answered with an error, which nothing here gives it a reason for."""


class FourClients:
    """size: of what they change, from its beginning. promised_by: "flush", "fua", or "both", which is what a client has to
    make changes durable by. forced_over_plain: whether a durable write may go where a plain change was and no flush came
    since. A log of dm-log-writes has the former before the latter, which is the wrong way round."""

    def __init__(self, path, size, history, chance, first_number=1, forced_over_plain=True, promised_by="both"):
        self._history = history
        self._chance = chance
        self.next_number = first_number
        self._forced_over_plain = forced_over_plain
        # Durable zeroes and trims end with a flush, which would keep the promises of other changes too.
        self._kinds = [1, 0, 0, 0] if promised_by == "fua" else [60, 14, 10, 16]
        self._durable_share = 0 if promised_by == "flush" else 0.25
        self._size = size
        self._under_way = []  # changes, and no flushes
        self._plain = collections.Counter()  # block -> its changes that neither forced themselves nor were flushed
        self._plain_answered = []  # of those
        self._poll = selectors.DefaultSelector()
        self.answers = 0
        self.met = 0  # changes that were asked for while another one of the same sector was under way
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

    def close(self):
        for key in list(self._poll.get_map().values()):
            key.data.close()
        self._poll.close()

    def _ask(self, client):
        change = self._choose()
        flags = FUA if change.durable else 0
        if change.kind == ZERO and self._chance.random() < 0.3:
            flags |= NO_HOLE
        payload = change.payload() if change.kind == WRITE else b""
        asked = raw_client.request(COMMANDS[change.kind], change.number, change.offset, change.length, flags, payload)
        client.under_way[change.number] = change
        self._history.asked(change)
        client.send(asked)

    # What to ask

    def _choose(self):
        number = self.next_number
        self.next_number += 1
        kind = self._chance.choices([WRITE, ZERO, TRIM, FLUSH], self._kinds)[0]
        if kind == FLUSH:
            change = Change(number, FLUSH, 0, 0, False)
            change.clears = list(self._plain_answered)
            return change
        while True:
            change = Change(number, kind, *self._place(kind))
            change.blocks = range(change.offset // BLOCK, -(-change.end // BLOCK))
            # A trim or zeroes that are durable are plain ones with a flush behind them.
            change.forces = change.durable and kind == WRITE
            if self._has_room_for(change):
                break
        self.met += any(each.offset // CELL <= (change.end - 1) // CELL and change.offset // CELL <= (each.end - 1) // CELL
                        for each in self._under_way)
        self._under_way.append(change)
        if not change.forces:
            self._plain.update(change.blocks)
        return change

    def _has_room_for(self, change):
        beside = [each for each in self._under_way
                  if each.blocks.start < change.blocks.stop and change.blocks.start < each.blocks.stop]
        if len(beside) >= TOGETHER_MAX or any(each.offset < change.end and change.offset < each.end for each in beside):
            return False
        if self._forced_over_plain:
            return True
        if change.forces and any(self._plain[block] for block in change.blocks):
            change.durable = change.forces = False
        return change.forces or not any(each.forces for each in beside)

    def _place(self, kind):
        """Offset, length, and whether it is durable. Some places are asked for more often than others: so there is something
        to lose in them, and so changes of one sector meet."""
        where = self._chance.random()
        durable = self._chance.random() < self._durable_share
        if where < 0.25:
            which = self._chance.randrange(len(CROWDED_CELLS))
            # Durable and plain ones may not meet in a recording, so that each have their own.
            durable = which % 2 == 0 and self._durable_share > 0
            offset = CROWDED_CELLS[which] * CELL + self._chance.randrange(CELL)
            return offset, 1 + self._chance.randrange(CROWDED_LENGTH), durable
        cells = -(-self._size // CELL)  # the last one may be a part
        if where < 0.3:
            first = cells - 1 - self._chance.randrange(TAIL_CELLS)
        elif where < 0.55:
            first = self._chance.randrange(HOT_BLOCKS * BLOCK_CELLS)
        else:
            first = self._chance.randrange(cells)
        if self._chance.random() < 0.4:
            first -= first % BLOCK_CELLS
        longest = 24 if kind == WRITE else 64
        likely = [1, 1, 2, BLOCK_CELLS, BLOCK_CELLS, 2 * BLOCK_CELLS]
        count = self._chance.choice([*likely, 1 + self._chance.randrange(longest)])
        begin, end = first * CELL, (first + count) * CELL
        if self._chance.random() < 0.4:
            begin, end = begin + self._chance.randrange(CELL), end + self._chance.randrange(CELL)
        begin = min(begin, self._size - 1)
        return begin, min(end, self._size) - begin, durable

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
            flushed = [each for each in change.clears if each in self._plain_answered]
            self._plain_answered = [each for each in self._plain_answered if each not in flushed]
        else:
            self._under_way.remove(change)
            flushed = [change] if change.durable and not change.forces else []
            if not change.durable:
                self._plain_answered.append(change)
        for each in flushed:
            self._plain.subtract(each.blocks)
