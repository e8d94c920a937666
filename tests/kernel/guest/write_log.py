"""The log of dm-log-writes, and the disk as it may be after the power went at some point of it.

The log has a header of one sector, then for each entry a sector that describes it and the data, if it has any: what the
kernel's Documentation/admin-guide/device-mapper/log-writes.rst says. A write that does not force itself to the disk
(FUA) is logged when a flush came that covers it, before that flush; so where a plain write stands in the log is in order
among its like and among flushes, and says nothing about the FUA writes of the time since the flush before.

What a disk has at a point of the log: all that was flushed or forced. What it may have as well, or not, or in part: the
plain writes since. That is the cache of a real disk, which writes out what it likes when it likes.
"""
import mmap
import os
import struct

FLUSHES, FORCED, DISCARDS, MARKS = 1, 2, 4, 8
MAGIC, VERSION = 0x6A736677736872, 1
SECTOR = 512


class Entry:
    def __init__(self, flags, offset, length, data, mark):
        self.flags, self.offset, self.length = flags, offset, length
        self._data = data  # where in the log, or None
        self.mark = mark

    def content(self, log):
        return bytes(self.length) if self.flags & DISCARDS else log[self._data:self._data + self.length]


class WriteLog:
    def __init__(self, path):
        descriptor = os.open(path, os.O_RDONLY)
        self.bytes = mmap.mmap(descriptor, os.lseek(descriptor, 0, os.SEEK_END), prot=mmap.PROT_READ)
        os.close(descriptor)
        magic, version, count, sector = struct.unpack_from("<QQQI", self.bytes)
        if (magic, version) != (MAGIC, VERSION):
            raise ValueError(f"{path} holds no log of writes")
        self.entries = []
        at = sector
        for _ in range(count):
            first, length, flags, inline = struct.unpack_from("<QQQQ", self.bytes, at)
            text = self.bytes[at + 32:at + 32 + inline].decode() if flags & MARKS else None
            at += sector
            self.entries.append(Entry(flags, first * sector, length * sector, at, text))
            if not flags & DISCARDS:
                at += length * sector

    def marked(self):
        """[(index in entries, number)] of the marks that are numbers."""
        return [(index, int(entry.mark)) for index, entry in enumerate(self.entries)
                if entry.mark is not None and entry.mark.isdigit()]


class ReplayedDisk:
    """A device that is brought, step by step, to what a disk surely has at a point of the log."""

    def __init__(self, log, path):
        self._log = log
        self._device = os.open(path, os.O_RDWR)
        self._next = 0
        self._cached = []  # entries that no flush has covered
        self._discarded = set()  # sectors, and not written since

    def go_to(self, index):
        """All entries before that one have happened."""
        for entry in self._log.entries[self._next:index]:
            if entry.flags & FLUSHES:
                self.write_cached()
            if not entry.length:
                continue
            if entry.flags & FORCED:
                self._write(entry)
            else:
                self._cached.append(entry)
        self._next = max(self._next, index)
        os.fsync(self._device)

    def write_cached(self):
        for entry in self._cached:
            self._write(entry)
        self._cached.clear()

    def write_some_cached(self, device, chance, piece):
        """Onto a snapshot of the disk: none of the cache, all of it, or some pieces. How many there were to choose of."""
        share = chance.choice([0, 1, 0.5, 0.5, 0.9])
        pieces = [(entry, at) for entry in self._cached for at in range(0, entry.length, piece)]
        for entry, at in pieces:
            if chance.random() < share:
                os.pwrite(device, entry.content(self._log.bytes)[at:at + piece], entry.offset + at)
        os.fsync(device)
        return len(pieces)

    def _write(self, entry):
        os.pwrite(self._device, entry.content(self._log.bytes), entry.offset)
        sectors = range(entry.offset // SECTOR, (entry.offset + entry.length) // SECTOR)
        if entry.flags & DISCARDS:
            self._discarded.update(sectors)
        elif self._discarded:
            self._discarded.difference_update(sectors)

    def first_difference(self, path):
        """The first sector in which the disk that was recorded differs, discarded ones apart; None if there is none."""
        end = max((entry.offset + entry.length for entry in self._log.entries), default=0)
        with open(path, "rb", buffering=0) as other:
            # Of what was read before it was recorded, there may be pages in the cache.
            os.posix_fadvise(other.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for offset in range(0, end, 1 << 20):
                theirs = other.read(1 << 20)
                mine = os.pread(self._device, len(theirs), offset)
                if mine == theirs:
                    continue
                for at in range(0, len(mine), SECTOR):
                    sector = (offset + at) // SECTOR
                    if mine[at:at + SECTOR] != theirs[at:at + SECTOR] and sector not in self._discarded:
                        return sector
        return None
