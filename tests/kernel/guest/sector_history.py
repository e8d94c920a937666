"""What was asked of a disk and what was promised about it, sector by sector; and the judge of a disk after a power cut.

Every sector that is written says what it is: its own number and the number of the change that wrote it, over and over,
and a checksum. So a sector that was torn, that came from elsewhere or from long ago is seen for what it is.

The judge knows, for each sector, the changes in their order (whoever asks never has two of the same sector under way)
and the last one that was covered: its own reply came and it was durable by itself, or a flush was asked for after its reply,
and answered. After a cut a sector holds that change's content or a later one's; anything else is a complaint. A later one
is one that was asked for before the mark that follows the cut: what came afterwards excuses nothing.
"""
import struct
import zlib

SECTOR = 512
MAGIC = b"aionbd!\n"
ZEROES = bytes(SECTOR)
REPEATED = (SECTOR - len(MAGIC) - 8) // 16

WRITE, ZERO, TRIM, FLUSH = "write", "zero", "trim", "flush"


def content_of(sector, number):
    """What change `number` writes to `sector`."""
    body = MAGIC + struct.pack("<QQ", sector, number) * REPEATED
    return body + struct.pack("<II", zlib.crc32(body), 0)


def identify(content):
    """(sector, number) as a sector says it, or two times None if that is not true of all of it."""
    magic, sector, number = struct.unpack_from("<8sQQ", content)
    return (sector, number) if magic == MAGIC and content == content_of(sector, number) else (None, None)


class Change:
    """A request that changes sectors, or a flush. `number` counts up over all of them."""

    def __init__(self, number, kind, first, count, durable):
        self.number, self.kind, self.first, self.count, self.durable = number, kind, first, count, durable
        self.covers = 0  # of a flush: how many entries of History.answered it was asked for after

    def sectors(self):
        return range(self.first, self.first + self.count)

    def payload(self):
        return b"".join(content_of(sector, self.number) for sector in self.sectors())

    def __str__(self):
        how = "durable " if self.durable else ""
        return f"{how}{self.kind} {self.number} of sectors {self.first} to {self.first + self.count - 1}"


class History:
    """Filled while requests are made: asked(), replied(), mark(). A Judge goes along it afterwards.

    held: what each sector holds at the beginning, as (number of the change, kind); zeroes, if nothing is said.
    """

    def __init__(self, sectors, held=None):
        self.held = held or [(0, ZERO)] * sectors
        self.events = []  # ("asked" | "replied", change) and ("mark", number)
        self.marks = 0

    def asked(self, change):
        self.events.append(("asked", change))

    def replied(self, change):
        self.events.append(("replied", change))

    def mark(self):
        """The number of a moment that a judge can be asked about."""
        self.events.append(("mark", self.marks))
        self.marks += 1
        return self.marks - 1


class Judge:
    """Goes along a history and judges a disk as it may be at a moment of it.

    trim_granularity: what lies within is zero after a trim, and the rest as it was, as in a file; None: a trim may
    have done anything from nothing to all of it, as on a disk.
    """

    def __init__(self, history, trim_granularity=4096):
        self._events = history.events
        self._at = 0  # in events, of the moment
        self._heard_to = 0  # in events: what was asked for up to there may be on the disk
        self._granularity = trim_granularity // SECTOR if trim_granularity else None
        self._changes = [[held] for held in history.held]  # (number, kind) in order, for each sector
        self._covered = [number for number, _ in history.held]  # the number of the last covered change
        self._answered = []  # plain changes in the order of their replies
        self._answered_covered = 0
        self._known = {}  # content of sectors -> what it says it is, if that is true of all of it
        self.promised = 0  # changes that were covered so far

    def _reach(self, change):
        if change.kind != TRIM or self._granularity is None:
            return change.sectors()
        begin = -(-change.first // self._granularity) * self._granularity
        end = (change.first + change.count) // self._granularity * self._granularity
        return range(begin, max(begin, end))

    def go_to_mark(self, number):
        """Everything up to there has happened, and what was promised by then must be kept. The cut comes before the next mark:
        what is asked for until then may be on the disk."""
        self._hear_until_mark(number + 1)
        while True:
            what, item = self._events[self._at]
            if what == "mark" and item >= number:
                return
            self._at += 1
            if what == "asked" and item.kind == FLUSH:
                item.covers = len(self._answered)
            elif what == "replied":
                self._take_reply(item)

    def _hear_until_mark(self, number):
        """Or until the end, if there is no such mark."""
        while self._heard_to < len(self._events):
            what, item = self._events[self._heard_to]
            if what == "mark" and item >= number:
                return
            self._heard_to += 1
            if what == "asked" and item.kind != FLUSH:
                for sector in self._reach(item):
                    self._changes[sector].append((item.number, item.kind))

    def _take_reply(self, change):
        if change.kind == FLUSH:
            while self._answered_covered < change.covers:
                self._cover(self._answered[self._answered_covered])
                self._answered_covered += 1
        elif change.durable:
            self._cover(change)
        else:
            self._answered.append(change)

    def _cover(self, change):
        self.promised += 1
        for sector in self._reach(change):
            self._covered[sector] = max(self._covered[sector], change.number)

    def complaints(self, read):
        """What is wrong with a disk; `read(first, count)` gives its sectors."""
        found = []
        count = len(self._changes)
        for first in range(0, count, 256):
            content = read(first, min(256, count - first))
            for index in range(len(content) // SECTOR):
                complaint = self._complaint(first + index, content[index * SECTOR:(index + 1) * SECTOR])
                if complaint:
                    found.append(complaint)
        return found

    def _complaint(self, sector, content):
        floor = self._covered[sector]
        if content == ZEROES:
            if any(number >= floor and kind != WRITE for number, kind in self._changes[sector]):
                return None
            return f"sector {sector} is lost: it holds zeroes, and change {floor} was promised to be there"
        if content not in self._known:
            self._known[content] = identify(content)
        of_sector, number = self._known[content]
        if number is None:
            return f"sector {sector} is torn, or nobody wrote what it holds: {content[:32].hex()} ..."
        if of_sector != sector:
            return f"sector {sector} holds what was written to sector {of_sector}, by change {number}"
        if (number, WRITE) not in self._changes[sector]:
            return f"sector {sector} holds change {number}, which nobody had asked for there"
        if number >= floor or number in self._still_there_after(sector, floor):
            return None
        return f"sector {sector} is lost: it holds change {number}, and change {floor} was promised to be there"

    def _still_there_after(self, sector, floor):
        """The changes whose content the covered one may have left: a trim of a disk need not do anything."""
        if self._granularity is not None:
            return set()
        left = set()
        for number, kind in reversed([each for each in self._changes[sector] if each[0] <= floor]):
            left.add(number)
            if kind != TRIM:
                break
        return left

    def held_now(self, read):
        """What a disk without complaints holds, for the History that begins with it."""
        contents = (read(sector, 1) for sector in range(len(self._changes)))
        return [(0, ZERO) if content == ZEROES else (identify(content)[1], WRITE) for content in contents]
