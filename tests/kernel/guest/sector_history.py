"""What was asked of a disk and what was promised about it, byte by byte; and the judge of a disk after a power cut.

Every 512 bytes that are written whole say what they are: where they belong and the number of the change that wrote them,
and the rest follows from these two, as a checksum does. So what was torn, what came from elsewhere or from long ago is
seen for what it is. A change that covers a part only writes bytes that follow from the same two, and from their place.

The judge looks at logical sectors of the disk, for these are what a power cut leaves whole. It knows for each the changes
in their order, and which of them were covered: the change's own reply came and it was durable by itself, or a flush was
asked for after its reply, and answered. After a cut a sector holds what some of its changes make of one another, all
covered ones among them, and with each those that had been answered when it was asked for; anything else is a complaint.
Changes of one sector may be under way together if they have no byte in common: then either may be there without the other.
Changes that were asked for after the mark that follows the cut excuse nothing.
"""
import hashlib
import random
import struct

CELL = 512  # what says what it is
MAGIC = b"aionbd!\n"
HEAD = struct.Struct("<8sQQ")
# Makes a byte depend on its place.
PLACES = int.from_bytes(random.Random(0).randbytes(CELL), "little")

WRITE, ZERO, TRIM, FLUSH = "write", "zero", "trim", "flush"


def noise_of(cell, number):
    """What change `number` writes to some bytes of a cell, wherever in it."""
    digest = hashlib.blake2b(struct.pack("<QQ", cell, number)).digest()
    return (int.from_bytes(digest * (CELL // len(digest)), "little") ^ PLACES).to_bytes(CELL, "little")


def content_of(cell, number):
    """What change `number` writes to a whole cell."""
    return HEAD.pack(MAGIC, cell, number) + noise_of(cell, number)[HEAD.size:]


def identify(content):
    """(cell, number) as a cell says it, or two times None if that is not true of all of it."""
    if len(content) < CELL:
        return None, None
    magic, cell, number = HEAD.unpack_from(content)
    return (cell, number) if magic == MAGIC and content == content_of(cell, number) else (None, None)


class Change:
    """A request that changes bytes, or a flush. `number` counts up over all of them."""

    def __init__(self, number, kind, offset, length, durable):
        self.number, self.kind, self.offset, self.length, self.durable = number, kind, offset, length, durable
        self.covers = 0  # of a flush: how many of the answered changes it was asked for after
        self._payload = None

    @property
    def end(self):
        return self.offset + self.length

    def payload(self):
        if self._payload is None:
            pieces = []
            for cell in range(self.offset // CELL, -(-self.end // CELL)):
                begin, end = max(self.offset - cell * CELL, 0), min(self.end - cell * CELL, CELL)
                is_whole = end - begin == CELL
                pieces.append(content_of(cell, self.number) if is_whole else noise_of(cell, self.number)[begin:end])
            self._payload = b"".join(pieces)
        return self._payload

    def leaves(self, begin, end):
        """What is between these offsets after it."""
        return self.payload()[begin - self.offset:end - self.offset] if self.kind == WRITE else bytes(end - begin)

    def __str__(self):
        how = "durable " if self.durable else ""
        return f"{how}{self.kind} {self.number} of bytes {self.offset} to {self.end - 1}"


class History:
    """Filled while requests are made: asked(), replied(), mark(). A Judge goes along it afterwards.

    held: what the disk holds at the beginning; zeroes, if nothing is said.
    """

    def __init__(self, size, held=None):
        self.held = held or bytes(size)
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


class Step:
    """What a change does to one sector."""

    def __init__(self, change, sector, after, may_do_nothing):
        self.number = change.number
        self.after = after  # the numbers of steps that had been answered when it was asked for, and are there with it
        self._may_do_nothing = may_do_nothing
        begin, end = max(change.offset, sector.begin), min(change.end, sector.end)
        self._begin, self._end = begin - sector.begin, end - sector.begin
        self._bytes = change.leaves(begin, end)

    def of(self, contents):
        changed = {content[:self._begin] + self._bytes + content[self._end:] for content in contents}
        return changed | contents if self._may_do_nothing else changed


def all_that_become_of(contents, steps):
    """By any of the steps, each with those that it is after. They are in the order in which they were asked for."""
    left = {step.number for step in steps}
    reached = {frozenset(): contents}
    for step in steps:
        needed = step.after & left
        for done, before in list(reached.items()):
            if needed <= done:
                reached[done | {step.number}] = step.of(before)
    return set().union(*reached.values())


class Sector:
    def __init__(self, begin, content):
        self.begin, self.end = begin, begin + len(content)
        self._first = {content}
        self._steps = []
        self._there = {content}  # what it may hold with all that must be there, and no more
        self._open = []  # steps that need not be there
        self._promised = None  # the number of the last
        self._allowed = None

    def hear(self, change, ended, may_do_nothing):
        after = {step.number for step in self._steps if step.number in ended}
        step = Step(change, self, after, may_do_nothing)
        self._steps.append(step)
        self._open.append(step)
        self._allowed = None

    def promise(self, number):
        """That one must be there, and with it those that came before it."""
        self._promised = max(number, self._promised or 0)
        promised = next((step for step in self._open if step.number == number), None)
        if not promised:
            return
        due = promised.after | {number}
        for step in self._open:
            if step.number in due:
                self._there = step.of(self._there)
        self._open = [step for step in self._open if step.number not in due]
        self._allowed = None

    def may_hold(self, content):
        """With what must be there, any of the other changes, each with those that came before it."""
        if self._allowed is None:
            self._allowed = all_that_become_of(self._there, self._open)
        return content in self._allowed

    def lacks_something(self, content):
        """Whether there are changes in it that nobody promised and that are not there."""
        newest = self._there
        for step in self._open:
            newest = step.of(newest)
        return content not in newest

    def complaint(self, content):
        """About what it may not hold."""
        numbers = {step.number for step in self._steps}
        told = []
        for at in range(0, len(content), CELL):
            place, (says, number) = (self.begin + at) // CELL, identify(content[at:at + CELL])
            if number is None:
                continue
            if says != place:
                return f"holds what was written to place {says}, by change {number}"
            if number not in numbers and content not in self._first:
                return f"holds change {number}, which nobody had asked for there"
            told.append(f"change {number}")
        if content in all_that_become_of(self._first, self._steps):
            held = " and ".join(told) or ("an older state" if any(content) else "zeroes")
            return f"is lost: it holds {held}, and change {self._promised} was promised to be there"
        return f"is torn, or nobody wrote what it holds: {self._compared(content)}"

    def _compared(self, content):
        def differing(other):
            return [at for at, (mine, theirs) in enumerate(zip(content, other)) if mine != theirs]
        wrong = min(map(differing, self._allowed), key=len)
        return f"{len(wrong)} of its bytes, from {wrong[0]} to {wrong[-1]}, are not those of the most alike that it may hold"


class Judge:
    """Goes along a history and judges a disk as it may be at a moment of it.

    sector: what a power cut does not tear. trim_granularity: what lies within is zero after a trim, and the rest as it was,
    as in a file; None: a trim may have done anything from nothing to all of it, as on a disk.
    """

    def __init__(self, history, sector=512, trim_granularity=4096):
        self._events = history.events
        self._at = 0  # in events, of the moment
        self._heard_to = 0  # in events: what was asked for up to there may be on the disk
        self._sector = sector
        self._granularity = trim_granularity
        self._sectors = [Sector(at, history.held[at:at + sector]) for at in range(0, len(history.held), sector)]
        self._ended = set()  # the numbers of what was answered, as far as was heard
        self._answered = []  # plain changes in the order of their replies
        self._answered_covered = 0
        self.promised = 0  # changes that were covered so far

    def _reached_by(self, change):
        begin, end = change.offset, change.end
        if change.kind == TRIM and self._granularity is not None:
            begin = -(-begin // self._granularity) * self._granularity
            end = end // self._granularity * self._granularity
        return self._sectors[begin // self._sector:-(-end // self._sector)] if begin < end else []

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
            if what == "replied":
                self._ended.add(item.number)
            elif what == "asked" and item.kind != FLUSH:
                may_do_nothing = item.kind == TRIM and self._granularity is None
                for sector in self._reached_by(item):
                    sector.hear(item, self._ended, may_do_nothing)

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
        for sector in self._reached_by(change):
            sector.promise(change.number)

    def complaints(self, content):
        """What is wrong with a disk that holds this: for each sector that may not hold what it holds, a text that is made when
        it is asked for."""
        for index, sector in enumerate(self._sectors):
            held = content[sector.begin:sector.end]
            if not sector.may_hold(held):
                yield lambda index=index, sector=sector, held=held: f"sector {index} {sector.complaint(held)}"

    def lacking(self, content):
        """How many sectors lack changes that nobody promised: what a cut took, as it may."""
        return sum(sector.lacks_something(content[sector.begin:sector.end]) for sector in self._sectors)
