#!/usr/bin/python3
"""The parts of compare that could be wrong without anybody noticing: the judge, the summaries, the data."""
import os
import re
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "comparison"))

import goals      # noqa: E402
import loads      # noqa: E402
import measure    # noqa: E402
import observe    # noqa: E402
import report     # noqa: E402
import servers    # noqa: E402
import workloads  # noqa: E402


def cell(iops, cpu=10.0):
    rounds = [{"iops": value, "cpu_us_per_io": cpu} for value in (iops * 0.9, iops, iops * 1.5)]
    return measure.summary(rounds)


class Judge(unittest.TestCase):
    def test_a_cell_is_the_median_of_its_rounds(self):
        self.assertEqual(cell(100)["iops"], {"median": 100, "least": 90, "greatest": 150})
        self.assertIsNone(cell(100)["p99_us"])

    def test_a_goal_is_met_at_its_bound_and_missed_below(self):
        for ours, met in ((115.0, True), (114.9, False)):
            judged = goals.judge({"4k read depth 1": {"aionbd": cell(ours), "qemu-native": cell(100)}})
            rate = [each for each in judged if each["metric"] == goals.RATE]
            self.assertEqual([each["met"] for each in rate], [met])

    def test_processor_time_must_be_at_most_its_bound(self):
        for ours, met in ((7.5, True), (7.6, False)):
            judged = goals.judge({"4k read depth 1": {"aionbd": cell(100, ours), "qemu-native": cell(100, 10)}})
            self.assertEqual([each["met"] for each in judged if each["metric"] == goals.CPU], [met])

    def test_what_was_not_measured_is_not_judged(self):
        self.assertEqual(goals.judge({"4k read depth 1": {"qemu-native": cell(100)}}), [])

    def test_the_best_of_the_other_counts(self):
        cells = {"tcp 256k read": {"aionbd": cell(100), "qemu-native": cell(50)},
                 "256k read": {"qemu-native": cell(200)}}
        self.assertEqual([each["ratio"] for each in goals.judge(cells)], [0.5])

    def test_the_page_cache_is_apart_for_writes_and_equal_after_a_flush(self):
        rows = {"4k write depth 32": (0, 1), "4k write flush 32 x 8": (1, 0), "4k read depth 32": (1, 0)}
        for name, expected in rows.items():
            cells = {name: {"aionbd": cell(100), "nbdkit": cell(200)}}
            found = goals.behind(cells, workloads.ALL, servers.SERVERS)
            self.assertEqual(tuple(map(len, found)), expected, name)

    def test_nobody_is_behind_the_file_itself(self):
        cells = {"4k read depth 1": {"aionbd": cell(100), "raw": cell(200)}}
        self.assertEqual(goals.behind(cells, workloads.ALL, servers.SERVERS), ([], []))

    def test_every_goal_is_about_a_workload_and_a_server_that_exist(self):
        every = workloads.ALL + workloads.TLS
        names = {workload.name for workload in every}
        self.assertEqual(len(names), len(every))
        for goal in goals.GOALS:
            self.assertLessEqual({goal.workload, goal.other_workload or goal.workload, *goal.best_of}, names)
            self.assertIn(goal.server, {*servers.SERVERS, servers.RAW})

    def test_the_table_says_which_goal_is_missed(self):
        row = {"aionbd": cell(100), "qemu-native": cell(100)}
        cells = {"4k read depth 1": row}
        text = report.table(workloads.ALL, cells, goals.judge(cells), {})
        self.assertRegex(text, r"rate/qemu 1\.00 MISSED \(>=1\.15\)")
        self.assertRegex(report.verdict(goals.judge(cells), [], []), "Goals: 0 of 2 met")


class Figures(unittest.TestCase):
    def test_a_report_of_fio_without_any_request_is_a_failure(self):
        job = {"error": 0, "read": {"total_ios": 0}, "write": {"total_ios": 0}}
        self.assertRaises(loads.LoadFailed, loads._fio_figures, {"jobs": [job]})

    def test_processor_time_counts_threads_that_have_ended(self):
        program = ("import threading, time\n"
                   "def burn():\n    end = time.thread_time() + 0.3\n    while time.thread_time() < end: pass\n"
                   "burner = threading.Thread(target=burn)\nburner.start()\nburner.join()\n"
                   "print('done', flush=True)\ninput()\n")
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            self.assertGreater(observe.cpu_ns(child.pid), 0.3e9)
            child.communicate(b"\n")

    def test_processor_time_counts_children_that_were_reaped(self):
        program = ("import os, subprocess, sys\n"
                   "burn = 'import time\\nwhile time.process_time() < 0.3: pass'\n"
                   "subprocess.run([sys.executable, '-c', burn])\nprint('done', flush=True)\ninput()\n")
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            self.assertGreater(observe.cpu_ns(child.pid), 0.29e9)
            child.communicate(b"\n")

    def test_sleeping_is_a_context_switch(self):
        before = observe.living_switches(os.getpid())
        for _ in range(20):
            time.sleep(0.001)
        self.assertGreaterEqual(observe.living_switches(os.getpid()) - before, 20)

    def test_numbers_in_the_json_are_short(self):
        self.assertTrue(re.fullmatch(r"1234\.6", str(report._rounded({"a": 1234.5678})["a"])))


if __name__ == "__main__":
    unittest.main()
