#!/usr/bin/python3
"""The parts of growth that could be wrong without anybody noticing: as comparison_test.py."""
import dataclasses
import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from comparison_test import MACHINE, SETTINGS, cell, metrics, said, script

import backings   # noqa: E402
import curves     # noqa: E402
import growth_report  # noqa: E402
import loads      # noqa: E402
import memory     # noqa: E402
import run        # noqa: E402
import smoke      # noqa: E402
import workloads  # noqa: E402


class Growth(unittest.TestCase):
    def points(self, *rates, spread=0.02):
        return {place: {"iops": {"median": rate, "least": rate * (1 - spread), "greatest": rate * (1 + spread)}}
                for place, rate in enumerate(rates, 1)}

    def test_a_fall_is_told_when_it_is_more_than_noise(self):
        for rates, places in (((100, 200, 400), []), ((100, 200, 190), []), ((100, 200, 150), [3]),
                              ((100, 200, 150, 210, 150), [3, 5])):
            found = growth_report.falls(curves.ALL[0], self.points(*rates))
            self.assertEqual([place for place, _ in found], places)

    def test_a_fall_is_measured_from_the_best_before_and_told_with_the_spread(self):
        for spread, words in ((0.02, r"\(\+- 2 % and 2 %\)"), (0.4, r"\(\+- 40 % and 40 %; the rounds overlap\)")):
            points = self.points(100, 200, 128, spread=spread)
            self.assertEqual(growth_report.falls(curves.ALL[0], points), [(3, 2)])
            self.assertRegex(growth_report.fall_in_words(curves.ALL[0], points, 3, 2),
                             "^falls at 3: 0.64 of the best before, at 2 " + words)

    def test_the_ceiling_of_memory_is_that_of_the_requests_in_flight_and_the_connections(self):
        of_one = memory.PROGRAM + memory.HUGE_PAGE + 512 * memory.KIB
        for load, more in (({"depth": 1}, 4096), ({"block": 512, "depth": 2}, 8192), ({"depth": 256}, 128 * 4096),
                           ({"block": 32 << 20, "depth": 2}, 64 << 20), ({"block": 32 << 20, "depth": 9}, 64 << 20),
                           ({"block": 3 << 20}, 4 << 20), ({"tls": True}, 4096 + 700 * 1024)):
            self.assertEqual(memory.most(workloads.Workload("x", "fio", **load), 1 << 20), of_one + more, load)
        many = workloads.Workload("x", "fio", connections=10)
        self.assertEqual(memory.most(many, 0, threads=3),
                         memory.PROGRAM + 3 * memory.HUGE_PAGE + 10 * (512 * memory.KIB + 4096))
        for size, more in ((1 << 40, 1 << 17), (16 << 40, 2 << 20), (64 << 40, 2 << 20)):
            self.assertEqual(memory.most(many, size) - memory.most(many, 0), more)

    def test_more_memory_than_the_ceiling_is_complained_of(self):
        curve, peak = curves.ALL[0], {"median": 20, "least": 20, "greatest": 31}
        for ceiling, told in ((31, False), (30, True)):
            points = {1: {**cell(100), "peak_mib": peak, "ceiling_mib": ceiling}}
            self.assertEqual(growth_report.above_the_ceiling(points), [(1, 31, 30)] if told else [])
            text = growth_report.table(MACHINE, SETTINGS, [curve], {curve.name: {"aionbd": points}}, {}, None)
            self.assertEqual("TOO MUCH MEMORY at 1: 31 MiB of at most 30" in text, told)

    def test_curves_of_threads_share_a_chart_and_begin_with_the_default(self):
        threads = [curve for curve in curves.ALL if growth_report.group_of(curve) == "threads"]
        self.assertGreater(len(threads), 1)
        for curve in threads:
            self.assertEqual([point.threads for point in curve.points], [point.place for point in curve.points])
            self.assertEqual(curve.points[0].threads, 1)


IDLE = {"connections": 1000, "seconds": 1, "bytes_each": 12000.0, "cpu_ns": 0, "context_switches": 0}


class GrowthRun(unittest.TestCase):
    """`growth` itself, with nobody measured."""

    def setUp(self):
        self.growth = script("growth")
        self.curve = dataclasses.replace(curves.ALL[0], points=curves.ALL[0].points[:2])
        self.measured = []  # (place, server)

    def grown(self, outcomes, idle=IDLE, *, rounds=1, smoke=False):
        """`outcomes`: of each measurement in turn. The exit status, all that was printed, and what was written."""
        def measure_it(_plan, workload, server, _backing, _seed):
            self.measured.append((workload.connections, server))
            outcome = outcomes[min(len(self.measured), len(outcomes)) - 1]
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        with tempfile.TemporaryDirectory() as name, said() as text, mock.patch("backings.drop_all_caches"), \
                mock.patch("measure.measure", measure_it), mock.patch.object(self.growth, "measure_idle") as crowd:
            crowd.side_effect = [idle]
            options = mock.Mock(curves=[self.curve], idle=True, smoke=smoke, mib=1, rounds=rounds, runtime=1,
                                output=Path(name) / "out")
            plan = run.Plan([], [], {"aionbd": "/x", "qemu-native": "/y"}, rounds, 1, Path("/x"),
                            hidden={"/data": "FOLDER"})
            growing = self.growth.Growing(options, plan, mock.Mock())
            growing.go()
            status = self.growth.finish(options, MACHINE, 0, growing)
            written = options.output / growth_report.JSON_NAME
            result = json.loads(written.read_text("utf-8")) if written.exists() else None
        return status, text.getvalue(), result

    def test_another_server_begins_in_each_round(self):
        self.assertEqual(self.grown([metrics()], rounds=2)[0], 0)
        ours, theirs = "aionbd", "qemu-native"
        self.assertEqual([server for _, server in self.measured], [ours, theirs] * 2 + [theirs, ours] * 2)

    def test_what_the_machine_lacks_is_named_and_excused_and_what_failed_is_not(self):
        for why, kept, expected in ((backings.NotAvailable("tmpfs takes no direct I/O here"), "not_available", 0),
                                    (loads.LoadFailed("/data is full"), "failed", 1),
                                    (backings.ServerLacks("no FUA"), "failed", 1)):
            self.measured.clear()
            status, text, result = self.grown([why, metrics()])
            self.assertEqual(status, expected, why)
            reason = str(why).replace("/data", "FOLDER")
            self.assertEqual(result[kept], {"connections, aionbd, 1": reason})
            self.assertIn(f"Not measured:\n  connections, aionbd, 1: {reason}\n", text)
            self.assertNotIn("/data", json.dumps(result) + text)

    def test_whatever_becomes_of_the_crowd_that_idles_the_curves_are_kept(self):
        for end in (EOFError("the server closed the connection"), OSError(24, "Too many files"), KeyboardInterrupt()):
            status, text, result = self.grown([metrics()], end)
            self.assertEqual((status, [*result["curves"]["connections"]["aionbd"]]), (1, ["1", "2"]))
            if isinstance(end, KeyboardInterrupt):
                self.assertIn("INTERRUPTED, 1 of 1 rounds were whole", text)
            else:
                self.assertEqual(result["failed"], {"idle, aionbd, 1000": str(end)})

    def test_an_interrupted_run_says_how_much_of_it_was_done(self):
        status, text, result = self.grown([metrics()] * 5 + [KeyboardInterrupt()], rounds=3)
        self.assertEqual(status, 1)
        self.assertIn("INTERRUPTED, 1 of 3 rounds were whole", text)
        settings = result["settings"]
        self.assertEqual((settings["rounds"], settings["rounds_wanted"], settings["interrupted"]), (1, 3, True))
        self.assertEqual(result["curves"]["connections"]["aionbd"]["1"]["rounds"], 1)
        self.assertIsNone(self.grown([KeyboardInterrupt()])[2])

    def test_a_smoke_test_demands_the_figures_of_each_point(self):
        self.assertEqual(self.grown([metrics()], smoke=True)[0], 0)
        for broken, words in (({"switches_per_io": None}, "switches_per_io has no value"),
                              ({"iops": 0.0}, "iops has no value"),
                              ({"p50_us": 2.0}, "the percentiles do not rise"), ({"peak_mib": 1e6}, "more memory")):
            status, text, _ = self.grown([metrics(**broken)], smoke=True)
            self.assertEqual(status, 1, broken)
            self.assertIn(words, text)

    def test_a_smoke_test_demands_a_crowd_that_costs_something_and_no_more_than_a_connection_may(self):
        for bytes_each, right in ((1.0, True), (0.0, False), (-1.0, False), (500e3, True), (1e6, False)):
            status, text, _ = self.grown([metrics()], {**IDLE, "bytes_each": bytes_each}, smoke=True)
            self.assertEqual(status, 0 if right else 1, bytes_each)
            self.assertEqual("bytes each cannot be" in text, not right)
        self.assertEqual([*smoke._complaints_on_idle(None)], ["idle connections: not measured, and nobody says why"])

    def test_a_smoke_test_without_fio_is_skipped_and_a_run_without_it_has_failed(self):
        for is_smoke, status in ((True, 77), (False, 1)):
            with mock.patch("shutil.which", return_value=None), said(), self.assertRaises(SystemExit) as left:
                self.growth.refuse_bad_settings(mock.Mock(smoke=is_smoke))
            self.assertEqual(left.exception.code, status)

    def test_a_peer_that_is_not_here_is_named_where_it_is_wanted(self):
        for peers, lines in ((("qemu-native",), ["qemu-native is left out: no qemu-nbd here"]), ((), [])):
            options = mock.Mock(aionbd=Path(sys.executable), curves=[dataclasses.replace(self.curve, peers=peers)] * 2)
            with mock.patch("shutil.which", return_value=None), said() as text:
                self.assertEqual([*self.growth.find_programs(options)], ["aionbd"])
            self.assertEqual(text.getvalue().splitlines(), lines)


if __name__ == "__main__":
    unittest.main()
