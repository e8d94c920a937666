#!/usr/bin/python3
"""What the judge of power cuts says of small histories, and what a small log of writes is replayed to."""
import random
import struct
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "guest"))

from sector_history import FLUSH, SECTOR, TRIM, WRITE, ZERO, ZEROES, Change, History, Judge, content_of  # noqa: E402
from write_log import DISCARDS, FLUSHES, FORCED, MAGIC, MARKS, ReplayedDisk, WriteLog  # noqa: E402

SECTORS = 16


class JudgeTest(unittest.TestCase):
    def setUp(self):
        self.history = History(SECTORS)
        self.number = 0

    def ask(self, kind, first=0, count=1, durable=False):
        self.number += 1
        change = Change(self.number, kind, first, count, durable)
        self.history.asked(change)
        return change

    def do(self, *what, **how):
        change = self.ask(*what, **how)
        self.history.replied(change)
        return change

    def verdict(self, trim_granularity=4096, **contents):
        """Of a disk whose sectors hold contents: s3=7 is change 7 in sector 3, and the rest is zeroes."""
        return self.verdict_at(self.history.mark(), trim_granularity, **contents)

    def verdict_at(self, mark, trim_granularity=4096, **contents):
        disk = [ZEROES] * SECTORS
        for name, content in contents.items():
            sector = int(name[1:])
            disk[sector] = content if isinstance(content, bytes) else content_of(sector, content)
        judge = Judge(self.history, trim_granularity)
        judge.go_to_mark(mark)
        return judge.complaints(lambda first, count: b"".join(disk[first:first + count]))

    def assert_fine(self, **contents):
        self.assertEqual(self.verdict(**contents), [])

    def assert_found(self, words, **contents):
        complaints = self.verdict(**contents)
        self.assertEqual(len(complaints), 1, complaints)
        self.assertIn(words, complaints[0])

    def test_what_no_flush_covered_may_be_there_or_not(self):
        self.do(WRITE, 3)
        self.assert_fine()
        self.assert_fine(s3=1)

    def test_what_a_flush_covered_must_be_there_or_something_newer(self):
        self.do(WRITE, 3)
        self.do(FLUSH)
        self.ask(WRITE, 3)
        self.assert_fine(s3=1)
        self.assert_fine(s3=3)
        self.assert_found("sector 3 is lost: it holds zeroes")

    def test_an_older_content_is_a_loss(self):
        self.do(WRITE, 3)
        self.do(WRITE, 3, durable=True)
        self.assert_found("sector 3 is lost: it holds change 1", s3=1)

    def test_a_flush_covers_only_what_was_answered_before_it_was_asked_for(self):
        write = self.ask(WRITE, 3)
        flush = self.ask(FLUSH)
        self.history.replied(write)
        self.history.replied(flush)
        self.assert_fine()

    def test_a_flush_that_was_not_answered_covers_nothing(self):
        self.do(WRITE, 3)
        self.ask(FLUSH)
        self.assert_fine()

    def test_a_torn_sector_is_found(self):
        self.do(WRITE, 3, durable=True)
        self.do(WRITE, 3)
        self.assert_found("sector 3 is torn", s3=content_of(3, 1)[:256] + content_of(3, 2)[256:])

    def test_a_sector_from_elsewhere_is_found(self):
        self.do(WRITE, 2, count=2)
        self.assert_found("sector 3 holds what was written to sector 2", s3=content_of(2, 1))

    def test_what_nobody_wrote_is_found(self):
        self.do(WRITE, 2)
        self.assert_found("which nobody had asked for there", s3=1)
        self.assert_found("torn, or nobody wrote", s3=b"x" * SECTOR)

    def test_zeroes_that_were_promised_stay(self):
        self.do(WRITE, 3, durable=True)
        self.do(ZERO, 3)
        self.assert_fine(s3=1)
        self.do(FLUSH)
        self.assert_found("sector 3 is lost: it holds change 1, and change 2", s3=1)
        self.assert_fine()

    def test_a_trim_of_a_file_zeroes_what_lies_within_its_blocks(self):
        self.do(WRITE, 0, count=SECTORS, durable=True)
        self.do(TRIM, 7, count=9, durable=True)
        first_half = {f"s{sector}": 1 for sector in range(8)}
        self.assert_fine(**first_half)
        self.assert_found("sector 9 is lost", **first_half, s9=1)
        self.assert_found("sector 7 is lost", **{**first_half, "s7": ZEROES})

    def test_a_trim_of_a_disk_may_do_anything_but_bring_back_what_was_before(self):
        self.do(WRITE, 3, durable=True)
        self.do(WRITE, 3, durable=True)
        self.do(TRIM, 3, durable=True)
        for content in (2, ZEROES):
            self.assertEqual(self.verdict(None, s3=content), [])
        self.assertEqual(len(self.verdict(None, s3=1)), 1)

    def cut_then_changed(self):
        """Sector 3 is durably change 1; the mark before a cut, which the next mark follows; then it is zeroed and written."""
        self.do(WRITE, 3, durable=True)
        mark = self.history.mark()
        self.history.mark()
        self.do(ZERO, 3)
        self.do(WRITE, 3)
        self.history.mark()
        return mark

    def test_what_is_zeroed_after_the_cut_excuses_no_zeroes(self):
        complaints = self.verdict_at(self.cut_then_changed())
        self.assertEqual(complaints, ["sector 3 is lost: it holds zeroes, and change 1 was promised to be there"])

    def test_what_is_trimmed_after_the_cut_excuses_no_zeroes(self):
        for granularity in (4096, None):
            self.setUp()
            self.do(WRITE, 0, count=SECTORS, durable=True)
            mark = self.history.mark()
            self.history.mark()
            self.do(TRIM, 0, count=SECTORS)
            self.assertEqual(len(self.verdict_at(mark, granularity)), SECTORS)

    def test_content_from_after_the_cut_is_found(self):
        complaints = self.verdict_at(self.cut_then_changed(), s3=3)
        self.assertEqual(complaints, ["sector 3 holds change 3, which nobody had asked for there"])

    def test_what_is_asked_for_before_the_next_mark_may_be_there(self):
        self.do(WRITE, 3, durable=True)
        mark = self.history.mark()
        self.do(ZERO, 3)
        self.do(WRITE, 3)
        self.history.mark()
        for contents in ({"s3": 1}, {}, {"s3": 3}):
            self.assertEqual(self.verdict_at(mark, **contents), [])

    def test_each_mark_has_its_own_limit(self):
        marks = []
        for _ in range(3):
            self.do(WRITE, 3, durable=True)
            marks.append(self.history.mark())
        judge = Judge(self.history)
        for at, mark in enumerate(marks):
            judge.go_to_mark(mark)
            fine = {content_of(3, number) for number in (at + 1, at + 2) if number <= 3}
            for content in [ZEROES] + [content_of(3, number) for number in (1, 2, 3)]:
                disk = (bytes(3 * SECTOR) + content).ljust(SECTORS * SECTOR, b"\0")
                found = judge.complaints(lambda first, count, held=disk: held)
                self.assertEqual(found == [], content in fine, found)

    def test_a_history_goes_on_from_what_a_disk_holds(self):
        self.history = History(SECTORS, held=[(5, WRITE)] + [(0, ZERO)] * (SECTORS - 1))
        self.assert_fine(s0=5)
        self.assert_found("sector 0 is lost")


class ReplayTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log_path, self.disk_path = (Path(folder.name, name) for name in ("log", "disk"))
        self.disk_path.write_bytes(bytes(SECTORS * SECTOR))

    def replayed(self, entries, until=None, cached=None):
        """What sectors hold after entries of (flags, sector, letter or mark): a string, with dots for zeroes."""
        raw = b""
        for flags, sector, text in entries:
            length = 0 if flags & MARKS or not text else 1
            head = struct.pack("<QQQQ", sector, length, flags, len(text) if flags & MARKS else 0)
            raw += (head + (text.encode() if flags & MARKS else b"")).ljust(SECTOR, b"\0")
            raw += text.encode() * SECTOR if length and not flags & DISCARDS else b""
        head = struct.pack("<QQQI", MAGIC, 1, len(entries), SECTOR).ljust(SECTOR, b"\0")
        self.log_path.write_bytes(head + raw + bytes(SECTOR))
        self.log = WriteLog(self.log_path)
        disk = ReplayedDisk(self.log, self.disk_path)
        disk.go_to(len(entries) if until is None else until)
        if cached:
            with open(self.disk_path, "r+b") as snapshot:
                disk.write_some_cached(snapshot.fileno(), cached, SECTOR)
        content = self.disk_path.read_bytes()
        return "".join(chr(content[at] or ord(".")) for at in range(0, 4 * SECTOR, SECTOR))

    def test_only_what_was_flushed_or_forced_is_there(self):
        entries = [(0, 0, "a"), (FLUSHES, 0, ""), (0, 1, "b"), (FORCED, 2, "c"), (0, 3, "d")]
        self.assertEqual(self.replayed(entries), "a.c.")

    def test_what_was_flushed_is_written_in_its_order(self):
        self.assertEqual(self.replayed([(0, 0, "a"), (DISCARDS, 0, "x"), (0, 0, "b"), (FLUSHES, 0, "")]), "b...")

    def test_nothing_behind_the_cut_has_happened(self):
        self.assertEqual(self.replayed([(FORCED, 0, "a"), (FORCED, 1, "b")], until=1), "a...")

    def test_the_cache_may_be_written_in_any_part(self):
        entries = [(0, 0, "a"), (0, 1, "b"), (0, 2, "c")]
        seen = set()
        for seed in range(100):
            self.disk_path.write_bytes(bytes(SECTORS * SECTOR))
            seen.add(self.replayed(entries, cached=random.Random(seed)))
        self.assertEqual(seen, {a + b + c + "." for a in ".a" for b in ".b" for c in ".c"})

    def test_marks_are_found(self):
        self.replayed([(MARKS, 0, "0"), (FORCED, 0, "a"), (MARKS, 0, "1"), (MARKS, 0, "dm-log-writes-end")])
        self.assertEqual(self.log.marked(), [(0, 0), (2, 1)])

    def test_a_log_that_lacks_something_is_found_out(self):
        other = self.log_path.with_name("other")
        other.write_bytes(b"a" * SECTOR + b"?" * SECTOR + bytes((SECTORS - 2) * SECTOR))
        self.replayed([(FORCED, 0, "a"), (FORCED, 2, "b")])
        disk = ReplayedDisk(self.log, self.disk_path)
        self.assertEqual(disk.first_difference(other), 1)


if __name__ == "__main__":
    unittest.main()
