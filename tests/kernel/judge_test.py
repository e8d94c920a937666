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

from sector_history import CELL, FLUSH, TRIM, WRITE, ZERO, Change, History, Judge, content_of, noise_of  # noqa: E402
from write_log import DISCARDS, FLUSHES, FORCED, MAGIC, MARKS, ReplayedDisk, WriteLog  # noqa: E402

SECTOR, ZEROES = CELL, bytes(CELL)
SECTORS = 16


class JudgeTest(unittest.TestCase):
    def setUp(self):
        self.history = History(SECTORS * SECTOR)
        self.number = 0

    def ask_for_bytes(self, kind, offset, length, durable=False):
        self.number += 1
        change = Change(self.number, kind, offset, length, durable)
        self.history.asked(change)
        return change

    def ask(self, kind, first=0, count=1, durable=False):
        return self.ask_for_bytes(kind, first * SECTOR, count * SECTOR, durable)

    def do(self, *what, **how):
        change = self.ask(*what, **how)
        self.history.replied(change)
        return change

    def do_bytes(self, *what, **how):
        change = self.ask_for_bytes(*what, **how)
        self.history.replied(change)
        return change

    def verdict(self, trim_granularity=4096, sector=SECTOR, **contents):
        """Of a disk whose sectors hold contents: s3=7 is change 7 in sector 3, and the rest is zeroes."""
        return self.verdict_at(self.history.mark(), trim_granularity, sector, **contents)

    def verdict_at(self, mark, trim_granularity=4096, sector=SECTOR, **contents):
        disk = [ZEROES] * SECTORS
        for name, content in contents.items():
            at = int(name[1:])
            disk[at] = content if isinstance(content, bytes) else content_of(at, content)
        judge = Judge(self.history, sector, trim_granularity)
        judge.go_to_mark(mark)
        return [complaint() for complaint in judge.complaints(b"".join(disk))]

    def assert_fine(self, **contents):
        self.assertEqual(self.verdict(**contents), [])

    @staticmethod
    def patched(content, offset, change):
        """A sector's content with what this change writes to a part of it, which begins at this offset."""
        return content[:offset] + change.payload() + content[offset + change.length:]

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
        self.assert_found("sector 3 holds what was written to place 2", s3=content_of(2, 1))

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

    def test_a_trim_of_a_file_leaves_blocks_of_which_it_has_a_part(self):
        self.do(WRITE, 0, count=SECTORS, durable=True)
        self.do(TRIM, 1, count=14, durable=True)
        whole = {f"s{sector}": 1 for sector in range(SECTORS)}
        self.assert_fine(**whole)
        self.assert_found("sector 8 is lost: it holds zeroes", **{**whole, "s8": ZEROES})

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
                found = list(judge.complaints((bytes(3 * SECTOR) + content).ljust(SECTORS * SECTOR, b"\0")))
                self.assertEqual(found == [], content in fine)

    def test_a_history_goes_on_from_what_a_disk_holds(self):
        self.history = History(SECTORS * SECTOR, held=content_of(0, 5).ljust(SECTORS * SECTOR, b"\0"))
        self.assert_fine(s0=5)
        self.assert_found("sector 0 is torn, or nobody wrote", s0=ZEROES)

    # Changes of a part of a sector

    def written_in_parts(self):
        """Sector 3 is durably change 1; then parts of it are changed, and none of that is promised: its contents, in order."""
        self.do(WRITE, 3, durable=True)
        contents = [content_of(3, 1)]
        for offset, length in ((10, 50), (40, 100), (511, 1)):
            contents.append(self.patched(contents[-1], offset, self.do_bytes(WRITE, 3 * SECTOR + offset, length)))
        return contents

    def test_parts_of_a_sector_come_one_after_the_other(self):
        for content in self.written_in_parts():
            self.assert_fine(s3=content)

    def test_a_part_without_the_one_before_it_is_found(self):
        first, second, *_ = self.written_in_parts()
        last = self.do_bytes(WRITE, 3 * SECTOR + 300, 7)
        self.assert_found("sector 3 is torn, or nobody wrote", s3=self.patched(first, 300, last))
        self.assert_found("sector 3 is torn, or nobody wrote", s3=self.patched(second, 300, last))

    def test_a_part_of_a_part_is_found(self):
        first, second, *_ = self.written_in_parts()
        for end in range(11, 60):
            self.assert_found("torn", s3=second[:end] + first[end:])

    def test_a_byte_beside_a_part_that_changed_is_found(self):
        first, second, *_ = self.written_in_parts()
        for at in (0, 9, 60, 511):
            self.assert_found(f"1 of its bytes, from {at} to {at}, are not",
                              s3=second[:at] + bytes([second[at] ^ 1]) + second[at + 1:])

    def test_a_part_that_was_promised_must_be_there(self):
        first, second, third, fourth = self.written_in_parts()
        self.do(FLUSH)
        self.do_bytes(ZERO, 3 * SECTOR + 100, 30)
        self.assert_fine(s3=fourth)
        self.assert_fine(s3=fourth[:100] + bytes(30) + fourth[130:])
        for lost in (first, second, third):
            self.assert_found("sector 3 is lost: it holds", s3=lost)

    def test_a_zeroing_of_a_part_leaves_what_is_beside_it(self):
        self.do(WRITE, 3, count=2, durable=True)
        self.do_bytes(ZERO, 3 * SECTOR + 500, 24, durable=True)
        third, fourth = content_of(3, 1)[:500] + bytes(12), bytes(12) + content_of(4, 1)[12:]
        self.assert_fine(s3=third, s4=fourth)
        self.assert_found("sector 4 is torn", s3=third, s4=bytes(40) + fourth[40:])
        self.assert_found("sector 3 is lost: it holds change 1", s3=1, s4=fourth)
        self.assert_found("sector 4 is lost: it holds zeroes", s3=third, s4=ZEROES)

    def test_a_write_across_sectors_is_whole_in_each_and_may_be_in_one_only(self):
        change = self.do_bytes(WRITE, 3 * SECTOR + 100, 2 * SECTOR)
        third = bytes(100) + noise_of(3, 1)[100:]
        fifth = noise_of(5, 1)[:100] + bytes(412)
        self.assertEqual(change.payload(), third[100:] + content_of(4, 1) + fifth[:100])
        self.assert_fine(s3=third, s4=1, s5=fifth)
        self.assert_fine(s3=third)
        self.assert_fine(s4=1)
        self.assert_found("torn", s3=third[:200] + bytes(312))

    # Changes of one sector that are under way together

    def together(self, *durable):
        """Two writes to parts of sector 3, under way together, with their contents: none, either, both."""
        first, second = (self.ask_for_bytes(WRITE, 3 * SECTOR + offset, 100, how) for offset, how in zip((0, 100), durable))
        only_first, only_second = (self.patched(ZEROES, offset, each) for offset, each in ((0, first), (100, second)))
        return first, second, [ZEROES, only_first, only_second, self.patched(only_first, 100, second)]

    def test_either_of_two_under_way_together_may_be_there_without_the_other(self):
        first, second, contents = self.together(False, False)
        self.history.replied(second)
        self.history.replied(first)
        for content in contents:
            self.assert_fine(s3=content)

    def test_of_two_under_way_together_the_promised_one_must_be_there(self):
        _, second, (none, only_first, only_second, both) = self.together(False, True)
        self.history.replied(second)
        self.assert_fine(s3=only_second)
        self.assert_fine(s3=both)
        for lost in (none, only_first):
            self.assert_found("sector 3 is lost: it holds", s3=lost)

    def test_an_edge_that_is_stale_undoes_the_other_and_is_found(self):
        first, second, (_, only_first, only_second, both) = self.together(True, True)
        self.history.replied(first)
        self.history.replied(second)
        self.assert_fine(s3=both)
        for undone in (only_first, only_second):
            self.assert_found("sector 3 is lost", s3=undone)

    def test_who_comes_after_both_is_there_with_both_only(self):
        first, second, contents = self.together(False, False)
        self.history.replied(first)
        self.history.replied(second)
        third = self.do_bytes(WRITE, 3 * SECTOR + 400, 10)
        for content in contents:
            with_third = self.patched(content, 400, third)
            if content == contents[-1]:
                self.assert_fine(s3=with_third)
            else:
                self.assert_found("torn", s3=with_third)

    # Sectors of 4096

    def large_sector(self, **contents):
        return self.verdict(None, 4096, **contents)

    def test_a_large_sector_is_whole_although_parts_of_it_are_written(self):
        self.do(WRITE, 0, count=8, durable=True)
        self.do(WRITE, 2, count=3)
        before = {f"s{at}": 1 for at in range(8)}
        after = {**before, **{f"s{at}": 2 for at in range(2, 5)}}
        self.assertEqual(self.large_sector(**before), [])
        self.assertEqual(self.large_sector(**after), [])
        self.assertIn("sector 0 is torn", *self.large_sector(**{**after, "s3": 1}))
        self.assertIn("sector 0 is torn", *self.large_sector(**{**after, "s7": ZEROES}))

    def test_a_large_sector_that_lost_a_part_of_it_is_found(self):
        self.do(WRITE, 0, count=8)
        self.do(WRITE, 2, durable=True)
        before = {f"s{at}": 1 for at in range(8)}
        self.assertEqual(self.large_sector(**{**before, "s2": 2}), [])
        self.assertIn("sector 0 is lost: it holds change 1 and", *self.large_sector(**before))
        self.assertIn("sector 0 is lost: it holds zeroes", *self.large_sector())

    def test_a_part_of_a_large_sector_from_elsewhere_is_found(self):
        self.do(WRITE, 0, count=16, durable=True)
        whole = {f"s{at}": 1 for at in range(16)}
        self.assertIn("sector 1 holds what was written to place 4, by change 1",
                      *self.large_sector(**{**whole, "s12": content_of(4, 1)}))

    def test_what_is_lacking_is_counted_if_nobody_promised_it(self):
        self.do(WRITE, 1, durable=True)
        self.do(WRITE, 2)
        judge = Judge(self.history)
        judge.go_to_mark(self.history.mark())
        disk = bytes(SECTOR) + content_of(1, 1) + bytes(14 * SECTOR)
        self.assertEqual(judge.lacking(disk), 1)
        self.assertEqual(judge.lacking(disk[:2 * SECTOR] + content_of(2, 2) + disk[3 * SECTOR:]), 0)


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
