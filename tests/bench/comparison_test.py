#!/usr/bin/python3
"""The parts of compare and growth that could be wrong without anybody noticing: the judges, the summaries, the data,
and what is left of a run that did not go as it should."""
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE / "comparison"))

import backings   # noqa: E402
import charts     # noqa: E402
import goals      # noqa: E402
import loads      # noqa: E402
import machine    # noqa: E402
import measure    # noqa: E402
import mounts     # noqa: E402
import observe    # noqa: E402
import report     # noqa: E402
import results    # noqa: E402
import run        # noqa: E402
import servers    # noqa: E402
import smoke      # noqa: E402
import workloads  # noqa: E402


def script(name):
    """A program beside this file, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(HERE / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def cell(iops, cpu=10.0):
    rounds = [{"iops": value, "cpu_us_per_io": cpu} for value in (iops * 0.9, iops, iops * 1.5)]
    return measure.summary(rounds)


def job(name, ios, p99_us, verified=None):
    """As fio reports it; `verified` are reads of what was written."""
    part = {"total_ios": ios, "iops": ios, "bw_bytes": 4096 * ios,
            "clat_ns": {"percentile": {f"{each}00000": p99_us * 1000 for each in ("50.0", "99.0", "99.9")}}}
    if verified is None:
        return {"jobname": name, "error": 0, "mixed": part}
    return {"jobname": name, "error": 0, "write": part, "read": {"total_ios": verified}}


def named(name):
    return next(each for each in workloads.EVERY if each.name == name)


@contextlib.contextmanager
def said():
    """What is printed meanwhile, on either stream."""
    both = io.StringIO()
    with contextlib.redirect_stdout(both), contextlib.redirect_stderr(both):
        yield both


def metrics(**more):
    """Of one round, with nothing to complain of."""
    return {"ios": 1, **{name: 1.0 for name in measure.METRICS}, **more}


def ran(names, servers_of_run, outcome, *, made=None, **settings):
    """A run that measured nothing: `outcome` is what measure.measure() gives, or raises, or is asked for."""
    plan = run.Plan(**{"workloads": [named(name) for name in names], "servers": servers_of_run, "programs": {},
                       "rounds": 1, "runtime_s": 1, "folder": Path("/x"), "verify": True, **settings})
    done = run.Run(plan, made or mock.Mock())
    with said() as text, mock.patch("backings.drop_all_caches"), mock.patch("measure.measure", side_effect=outcome):
        done.go()
    return plan, done, text.getvalue()


def beside_writes():
    return next(each for each in workloads.FILE_SYSTEMS if each.beside)


MACHINE = {"processor": "Some Processor", "processors": 2, "memory_mib": 4096, "kernel": "6.1", "file_system": "ext4",
           "disk": "vda", "scheduler": "none [mq-deadline] kyber", "rotational": "0", "fio": "fio-3.33",
           "huge_pages": "always [madvise] never", "versions": {"qemu": "qemu-nbd 7.2", "aionbd": "aionbd 1"}}
SETTINGS = {"rounds": 3, "runtime_s": 2, "size": 2 << 30, "servers": ["aionbd", "aionbd, 2 threads"], "as_root": True,
            "load_average_before_rounds": [0.1, 2.5], "about_files": {}}


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

    def test_nobody_is_behind_the_file_itself_nor_behind_himself(self):
        cells = {"4k read depth 1": {"aionbd": cell(100), "raw": cell(200), servers.with_threads(2): cell(200)}}
        self.assertEqual(goals.behind(cells, workloads.ALL, servers.SERVERS), ([], []))

    def test_every_goal_is_about_a_workload_and_a_server_that_exist(self):
        names = {workload.name for workload in workloads.EVERY}
        self.assertEqual(len(names), len(workloads.EVERY))
        for goal in goals.GOALS:
            self.assertLessEqual({goal.workload, goal.other_workload or goal.workload, *goal.best_of}, names)
            self.assertIn(goal.server, {*servers.SERVERS, servers.RAW})

    def test_the_table_says_which_goal_is_missed(self):
        row = {"aionbd": cell(100), "qemu-native": cell(100)}
        cells = {"4k read depth 1": row}
        text = report.table(workloads.ALL, cells, goals.judge(cells), {})
        self.assertRegex(text, r"rate/qemu 1\.00 MISSED \(>=1\.15\)")
        self.assertRegex(report.verdict(goals.judge(cells), [], []), "Goals: 0 of 2 met")

    def test_structured_replies_are_judged_by_rate_and_by_processor_time(self):
        for cpu, met in ((10.3, True), (10.4, False)):
            judged = goals.judge({"simple 4k read": {"aionbd": cell(100)}, "structured 4k read": {"aionbd": cell(97, cpu)}})
            self.assertEqual([(each["metric"], each["met"]) for each in judged], [(goals.RATE, True), (goals.CPU, met)])

    def test_the_table_says_what_a_writer_does_to_a_reader(self):
        reader = beside_writes()
        cells = {reader.alone: {"aionbd": {**cell(100), "p99_us": {"median": 50}}},
                 reader.name: {"aionbd": {**cell(90), "p99_us": {"median": 125}}}}
        self.assertRegex(report.table(workloads.FILE_SYSTEMS, cells, [], {}), "p99 beside / alone: aionbd 2.5")

    def test_every_reader_beside_others_is_measured_alone_too(self):
        names = {workload.name for workload in workloads.FILE_SYSTEMS}
        self.assertLessEqual({workload.alone for workload in workloads.FILE_SYSTEMS if workload.beside}, names)


class Results(unittest.TestCase):
    def result(self, *, lacking=()):
        plan = run.Plan([], [], {"aionbd": "/x"}, 3, 2, Path("/x"))
        done = mock.Mock(lacking=dict(lacking), failed={})
        done.cells.return_value = {"4k read depth 1": {"aionbd": cell(110), "aionbd, 2 threads": cell(90)}}
        servers.remember(SETTINGS["servers"])
        return results.of(MACHINE, SETTINGS, plan, done)

    def test_the_table_begins_with_the_machine(self):
        text = results.text_of(self.result())
        self.assertRegex(text, r"\AProcessors: +2 x Some Processor\n.*\n.*Linux 6\.1\n.*mq-deadline; ext4\n")
        self.assertIn("qemu-nbd 7.2; aionbd 1; fio-3.33", text)

    def test_a_program_that_says_where_it_lies_is_not_quoted(self):
        with tempfile.TemporaryDirectory(prefix="some body ") as folder:
            program = Path(folder) / "qemu-nbd"
            program.write_text('#!/bin/sh\necho "$0 7.2 (Debian), of /opt/somebody/there"\n', encoding="utf-8")
            program.chmod(0o755)
            facts = machine.facts(Path(folder) / "file", {"qemu": str(program)})
            self.assertEqual(facts["versions"], {"qemu": "qemu-nbd 7.2 (Debian), of there"})
            self.assertNotIn(folder, json.dumps(facts))
            # Nor where an earlier run did so.
            results.write(Path(folder), {**self.result(), "machine": {**MACHINE, "versions": {"x": "/opt/a/b 1"}}}, "")
            self.assertEqual(results.load(Path(folder))["machine"]["versions"], {"x": "b 1"})

    def test_reasons_are_kept_without_the_folders_that_are_this_machine_s(self):
        hidden = machine.folders_to_hide("/data/x.img", Path("/data/tmp/aionbd-1"), {"aionbd": "/opt/aionbd/aionbd"},
                                         {"ext4": "/mnt/of somebody", "xfs": None})
        for said_of, kept in (("no room: '/data/x.img'", "no room: 'FOLDER/x.img'"),
                              ("socket=/data/tmp/aionbd-1/a.sock", "socket=TEMPORARY/a.sock"),
                              ("/mnt/of somebody is on tmpfs", "EXT4 is on tmpfs"),
                              ("/opt/aionbd/aionbd: no", "PROGRAMS/aionbd: no"),
                              ("/database and /var/data are others", "/database and /var/data are others")):
            self.assertEqual(machine.without_folders(said_of, hidden), kept)
        self.assertNotIn(str(HERE), machine.without_folders(f"{HERE}/comparison/client.py", hidden))
        self.assertNotIn("/", machine.folders_to_hide("/x.img", "/tmp/x", {}))

    def test_a_run_keeps_its_reasons_so(self):
        for why, kept in ((backings.NotAvailable("/data is full"), "lacking"), (OSError("/data is full"), "failed")):
            _, done, _ = ran(["4k read depth 1"], ["aionbd"], why, hidden={"/data": "FOLDER"})
            self.assertEqual(getattr(done, kept), {("4k read depth 1", "aionbd"): "FOLDER is full"})

    def test_the_same_reason_is_told_once_of_all_that_it_concerns(self):
        lacking = {(workload, server): "no nbdcopy" for workload in ("in", "out") for server in ("aionbd", "qemu")}
        text = report.table([], {}, [], {**lacking, ("in", "raw"): "no server"})
        self.assertEqual(text.split("Not measured:\n")[1].splitlines(),
                         ["  aionbd, qemu: no nbdcopy (in, out)", "  raw: no server (in)"])

    def test_the_facts_of_this_machine_make_a_head(self):
        text = machine.head(machine.facts(Path(__file__).parent / "not-there-yet.img", {}), SETTINGS)
        self.assertEqual(len(text.splitlines()), 6)
        self.assertNotIn(os.uname().nodename, text.replace(os.uname().release, ""))
        self.assertNotRegex(text, r"(?<!\w)/\w")

    def test_a_disk_is_called_what_the_kernel_calls_it(self):
        disk = machine._disk_below(Path.cwd())
        self.assertTrue(disk is None or (disk / "queue/scheduler").exists())

    def test_what_was_written_is_read_again_and_counted_into(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            lacking = {("null 4k read", "aionbd, 2 threads"): "it has one loop"}
            results.write(folder, self.result(lacking=lacking), "")
            servers.SERVERS.pop("aionbd, 2 threads")
            found = results.load(folder)
            self.assertEqual(results.lacking_of(found), lacking)
            before = results.text_of(found)
            results.add_system_calls(found, {("4k read depth 1", "aionbd, 2 threads"): (1.25, {"io_submit": 1.0}),
                                             ("4k read depth 1", "qemu"): (9, {})})
        after = results.text_of(results.judge(found))
        changed = [line for line in after.splitlines() if line not in before.splitlines()]
        self.assertEqual(len(changed), 1)
        self.assertRegex(changed[0], r"aionbd, 2 threads .* 1\.25 ")
        self.assertNotIn("1.25", before)

    def test_what_an_earlier_run_did_not_know_of_the_machine_is_asked_now_and_of_another_machine_never(self):
        earlier, now = {**MACHINE, "disk": "", "scheduler": "bfq"}, {**MACHINE, "is_virtual": True}
        self.assertEqual(machine.completed(earlier, now), {**now, "scheduler": "bfq"})
        self.assertEqual(machine.completed(earlier, {**now, "processor": "Other"}), earlier)

    def test_the_load_that_counts_is_the_one_before_our_own(self):
        self.assertEqual(report.warning_of_load([0.9, 30.0], 2), "")
        self.assertIn("3.5 threads", report.warning_of_load([3.5, 0.1], 2))
        self.assertEqual(report.warning_of_load([], 2), "")


class Smoke(unittest.TestCase):
    def complaints(self, outcome, server="aionbd", name="structured 4k read", *, table=None, drawn=None):
        plan, done, _ = ran([name], [server], outcome)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "compare.json"
            path.write_text(json.dumps({"cells": done.cells()}), encoding="utf-8")
            table = f"head\n{name}\n" if table is None else table
            return [*smoke.complaints(path, table, drawn, plan.workloads, plan, done)]

    def test_a_cell_that_is_complete_and_in_the_table_and_on_a_chart_is_not_complained_of(self):
        for drawn in (None, ["a.png"]):
            self.assertEqual(self.complaints([metrics()], drawn=drawn), [])
        self.assertEqual(self.complaints([metrics(p99_us=None)]), ["structured 4k read, aionbd: p99_us has no value"])

    def test_another_workload_whose_name_begins_alike_does_not_stand_for_one_in_the_table(self):
        name, longer = "4k read depth 32", "4k read depth 32 x 4"
        for table, told in ((f"\n{longer}\n", [f"{name} is not in the table"]), (f"\n{longer}\n{name}\n", [])):
            self.assertEqual(self.complaints([metrics()], name=name, table=table), told)
        noted = named("4k write fua")
        self.assertEqual(self.complaints([metrics()], name=noted.name, table=report.heading(noted)), [])

    def test_where_charts_can_be_drawn_one_at_least_must_come_out(self):
        self.assertEqual(self.complaints([metrics()], drawn=[]), ["no chart came out"])
        self.assertEqual(self.complaints([metrics()], name="simple 256k read", drawn=[]), [])

    def test_what_our_server_refuses_is_a_fault_and_what_a_peer_or_the_machine_lacks_is_none(self):
        refused = backings.ServerLacks("structured replies are not offered")
        self.assertEqual(self.complaints(refused), [f"structured 4k read, aionbd: {refused}"])
        self.assertEqual(len(self.complaints(refused, servers.with_threads(2))), 1)
        self.assertEqual(self.complaints(refused, "nbd-server"), [])
        self.assertEqual(self.complaints(backings.NotAvailable("no null device")), [])

    def test_what_failed_is_told_with_its_reason(self):
        self.assertEqual(self.complaints(loads.LoadFailed("fio failed")), ["structured 4k read, aionbd: fio failed"])

    def test_what_is_not_offered_is_the_server_s_doing(self):
        target = mock.Mock(endpoint=servers.Endpoint(path="/s"), export="")
        with mock.patch("loads._run", return_value=('{"unavailable": "FUA is not offered"}', 0)):
            self.assertRaisesRegex(backings.ServerLacks, "FUA", loads._client, named("4k write fua"),
                                   backings.Backing("/x", 1 << 20), target, 1, 1, False)

    def test_a_run_in_which_our_server_refused_everything_is_not_skipped(self):
        compare = script("compare")
        for why, status in ((backings.NotAvailable("no room"), compare.SKIPPED), (backings.ServerLacks("no FUA"), 1)):
            plan, done, _ = ran(["4k write fua"], ["aionbd"], why)
            with tempfile.TemporaryDirectory() as folder, said():
                options = mock.Mock(smoke=True, size=1 << 20, file=Path(folder) / "file", output=Path(folder),
                                    workloads=plan.workloads)
                self.assertEqual(compare.finish_measuring(options, plan, done, {}), status, why)


class Files(unittest.TestCase):
    """What lies behind the servers."""

    @contextlib.contextmanager
    def made(self, **patches):
        """With a folder of the test's own in place of the memory's."""
        with contextlib.ExitStack() as held:
            disk, memory_folder = (Path(held.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
            held.enter_context(mock.patch("backings.SHM", memory_folder))
            for name, value in patches.items():
                held.enter_context(mock.patch(f"backings.{name}", value))
            yield held.enter_context(backings.Backings(disk / "file", 2 << 20)), disk, memory_folder

    def test_a_file_whose_blocks_were_only_set_aside_is_written_in_full_and_once(self):
        filling = mock.Mock(side_effect=backings.fill)
        with self.made(fill=filling) as (made, disk, _):
            with open(disk / "file", "wb") as opened:
                os.posix_fallocate(opened.fileno(), 0, 2 << 20)
            for kind in ("file", "dense-out", "file"):
                path = Path(made.get(kind).path)
                self.assertNotIn(bytes(64), path.read_bytes())
            self.assertEqual(filling.call_count, 1)

    def test_a_tmpfs_that_takes_no_direct_io_is_what_the_machine_lacks(self):
        def refuse(path, flags, *more):
            if flags & os.O_DIRECT:
                raise OSError(22, "Invalid argument", str(path))
            return opened(path, flags, *more)
        opened = os.open
        with self.made() as (made, _, _), mock.patch("os.open", refuse):
            for _ in range(2):
                self.assertRaisesRegex(backings.NotAvailable, "^tmpfs takes no direct I/O here$", made.get, "tmpfs")

    def test_memory_that_can_be_had_counts_and_not_only_what_nobody_uses(self):
        text = "MemTotal: 99 kB\nMemFree:          1 kB\nMemAvailable:    7 kB\n"
        with mock.patch("backings.Path.read_text", return_value=text):
            self.assertEqual(backings.free_memory(), 7 << 10)
        self.assertGreater(backings.free_memory(), 0)

    def test_where_memory_is_short_that_is_said_and_a_copy_s_source_lies_on_the_disk(self):
        for free, where in ((3 << 20, "disk"), (5 << 20, "memory")):
            with self.made(free_memory=lambda free=free: free) as (made, disk, memory_folder):
                source = Path(made.get("dense-in").source)
                self.assertEqual(source.parent, disk if where == "disk" else memory_folder)
                about = {"dense-in": "copied from the same disk, for there is not enough free memory"}
                self.assertEqual(made.about(), about if where == "disk" else {})
                if where == "disk":
                    self.assertRaisesRegex(backings.NotAvailable, "^not enough free memory$", made.get, "tmpfs")


class Quick(unittest.TestCase):
    def test_it_takes_the_two_minutes_that_are_promised_and_has_something_of_everything(self):
        quick = [workload for workload in workloads.ALL if workload.quick]
        count = len(quick) * len(script("compare").QUICK_SERVERS.split(","))
        with said() as text:
            run.Progress(count, 1 + run.OVERHEAD_S).step("")
        minutes, seconds = re.search(r"(\d+):(\d\d) left", text.getvalue()).groups()
        self.assertTrue(100 <= int(minutes) * 60 + int(seconds) <= 120, text.getvalue())
        for is_one in (lambda each: each.reads, lambda each: each.writes, lambda each: each.flush_every,
                       lambda each: each.depth == 1, lambda each: each.connections > 1,
                       lambda each: each.block > 1 << 16, lambda each: each.transport == "tcp",
                       lambda each: each.load == "copy", lambda each: each.backing == "null",
                       lambda each: each.backing == "tmpfs"):
            self.assertTrue(any(map(is_one, quick)))


class WhatIsMissing(unittest.TestCase):
    def without(self, *programs):
        return mock.patch("shutil.which", lambda name, *_, **__: None if name in programs else f"/usr/bin/{name}")

    def test_without_nbdcopy_the_copies_are_left_out_and_nothing_is_made_for_them(self):
        made = mock.Mock()
        with self.without("nbdcopy"):
            _, done, _ = ran(["copy in dense", "4k read depth 32"], ["aionbd"], [metrics()], made=made)
        self.assertEqual(done.lacking, {("copy in dense", "aionbd"): "no nbdcopy here, which is in libnbd-bin"})
        self.assertEqual([*done.rounds], [("4k read depth 32", "aionbd")])
        made.get.assert_called_once_with("file")

    def test_what_can_be_done_without_is_named_once_each(self):
        compare = script("compare")
        for missing, workload, lines in (([], "copy in dense", 0), (["nbdcopy"], "4k read depth 1", 0),
                                         (["nbdcopy", "fincore"], "copy in dense", 2)):
            with self.without(*missing), said() as text:
                compare.name_what_is_missing(mock.Mock(workloads=[named(workload)] * 2, syscalls_into=None))
            self.assertEqual(len(text.getvalue().splitlines()), lines, missing)
            self.assertTrue(all(name in text.getvalue() for name in missing * bool(lines)))

    def test_without_fio_nothing_but_a_copy_can_be_measured(self):
        with self.without("fio"):
            for name, verify, lacks in (("4k read depth 1", False, True), ("4k write fua", False, True),
                                        ("copy in dense", False, False), ("copy in dense", True, True)):
                self.assertEqual(run.lacks_fio([named(name)], verify), lacks)


class WhatIsLeft(unittest.TestCase):
    """Of a run that did not go as it should."""

    def finished(self, outcome, rounds):
        compare = script("compare")
        plan, done, _ = ran(["4k read depth 1"], ["aionbd"], outcome, rounds=rounds)
        with tempfile.TemporaryDirectory() as name, said():
            folder = Path(name)
            options = mock.Mock(smoke=False, size=1 << 20, file=folder / "file", output=folder / "out")
            status = compare.finish_measuring(options, plan, done, {})
            if not options.output.exists():
                return status, None, None
            return status, results.load(options.output), (options.output / results.TEXT_NAME).read_text("utf-8")

    def test_an_interrupted_run_says_how_much_of_it_was_done(self):
        status, result, text = self.finished([metrics(), metrics(), KeyboardInterrupt], 5)
        self.assertEqual(status, 1)
        settings = result["settings"]
        self.assertEqual((settings["rounds"], settings["rounds_wanted"], settings["interrupted"]), (2, 5, True))
        self.assertIn("INTERRUPTED, 2 of 5 rounds were whole, each of 1 s", text.split("\n\n")[0])
        self.assertEqual(result["cells"]["4k read depth 1"]["aionbd"]["rounds"], 2)

    def test_a_whole_run_says_nothing_of_the_kind(self):
        status, result, text = self.finished([metrics(), metrics()], 2)
        self.assertEqual((status, result["settings"]["rounds"]), (0, 2))
        self.assertNotIn("INTERRUPTED", text)

    def test_a_run_that_was_interrupted_at_once_leaves_earlier_results_alone(self):
        self.assertEqual(self.finished([KeyboardInterrupt], 2), (1, None, None))

    def test_whatever_goes_wrong_in_one_measurement_the_others_are_kept(self):
        for why in (ValueError("no JSON"), EOFError("closed"), KeyError("jobs"), subprocess.TimeoutExpired("fio", 1)):
            status, result, _ = self.finished([metrics(), why], 2)
            self.assertEqual((status, [*result["failed"]]), (1, ["4k read depth 1, aionbd"]))
            self.assertEqual(result["cells"]["4k read depth 1"]["aionbd"]["rounds"], 1)

    def test_what_cannot_be_taken_away_is_told_and_the_rest_goes(self):
        with tempfile.TemporaryDirectory() as name, said() as text:
            left = Path(name) / "file.sparse"
            with backings.Backings(Path(name) / "file", 1 << 20) as made:
                left.touch()
                made._beside("sparse")
                for why in (OSError(16, "zram is busy"), mounts.CannotMount("umount: target is busy"),
                            KeyboardInterrupt()):
                    made._undo.callback(mock.Mock(side_effect=why))
            self.assertFalse(left.exists())
        self.assertRegex(text.getvalue(), r"(?s)interrupted.*umount: target is busy.*zram is busy")
        self.assertEqual(len(text.getvalue().splitlines()), 3)


@unittest.skipUnless(importlib.util.find_spec("matplotlib"), "no python3-matplotlib")
class Charts(unittest.TestCase):
    def bars_of(self, rows):
        """[(workload's place, server, is hatched)] and the entries of the legend."""
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
        figure = charts.figure_of(pyplot, rows, "title", "axis")
        plot, = figure.axes
        found = {(round(bar.get_x()), group.get_label()): bool(bar.get_hatch())
                 for group in plot.containers if hasattr(group, "patches") for bar in group}
        legend = [(text.get_text(), bool(patch.get_hatch()))
                  for text, patch in zip(plot.get_legend().get_texts(), plot.get_legend().get_patches())]
        pyplot.close(figure)
        return found, legend

    def test_a_bar_of_writes_that_are_in_the_page_cache_only_is_hatched(self):
        row = {name: cell(100)["iops"] for name in ("aionbd", "nbdkit", servers.RAW)}
        found, legend = self.bars_of({"4k write depth 1": row, "4k read depth 1": row, "4k write flush 32 x 8": row})
        self.assertEqual(len(found), 9)
        self.assertEqual([where for where, is_hatched in found.items() if is_hatched], [(0, "nbdkit")])
        self.assertEqual(legend, [("aionbd", False), ("nbdkit", False), ("raw", False),
                                  ("answers writes from the page cache", True)])
        self.assertEqual(len(self.bars_of({"4k read depth 1": row})[1]), 3)

    def test_a_chart_is_drawn_of_each_group_that_was_measured(self):
        with tempfile.TemporaryDirectory() as folder:
            result = {"cells": {"tls 4k read depth 32": {"aionbd": {"mb_per_s": cell(100)["iops"]}},
                                "4k write fua": {"aionbd": {"iops": cell(100)["iops"]}}}}
            drawn = charts.draw(result, Path(folder))
            self.assertEqual([path.name for path in drawn], ["iops-4k.png", "tls.png"])
            self.assertTrue(all(path.read_bytes().startswith(b"\x89PNG") for path in drawn))
        self.assertTrue(charts.have_a_place(["4k write fua"]))
        self.assertFalse(charts.have_a_place(["512 write on 4096"]))


class Mounts(unittest.TestCase):
    def test_of_file_systems_mounted_one_over_the_other_the_last_is_what_a_folder_is_on(self):
        with mock.patch("mounts._run", return_value="tmpfs\next4"):
            self.assertEqual(mounts.kind_of("/x"), "ext4")


class NullStore(unittest.TestCase):
    def found(self, name, age_s):
        """What it is, where it was built so much later than aionbd."""
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            program, store = folder / "server/aionbd", folder / "tests/bench/null/null_store"
            for number, path in enumerate((program, store)):
                if number == 0 or age_s is not None:
                    path.parent.mkdir(parents=True)
                    path.touch(0o755)
                    os.utime(path, (1000, 1000 + number * (age_s or 0)))
            command = servers.null_command(servers.SERVERS[name], str(program), servers.Endpoint(path="/s"),
                                           backings.Backing("/dev/zram7", 1 << 20, is_null=True), folder)
            return Path(command[0]).name

    def test_one_of_the_same_build_is_taken(self):
        self.assertEqual(self.found("aionbd", 0), "null_store")
        self.assertEqual(self.found("aionbd", 5), "null_store")

    def test_one_that_is_older_than_aionbd_is_not_taken(self):
        self.assertRaisesRegex(backings.ServerLacks, "null_store is older than aionbd", self.found, "aionbd", -1)

    def test_where_there_is_none_nothing_else_is_measured_in_its_place(self):
        self.assertRaisesRegex(backings.ServerLacks, "no null_store beside aionbd", self.found, "aionbd", None)
        # That is how compare makes it, and nothing that a build could have.
        with self.assertRaisesRegex(backings.NotAvailable, "one loop") as caught:
            self.found(servers.with_threads(2), 5)
        self.assertNotIsInstance(caught.exception, backings.ServerLacks)


DAEMON = """#!/usr/bin/python3
import contextlib, os, re, socket, sys, time
path = re.search("unixsock = (.*)", open(sys.argv[2]).read()).group(1)
listening = socket.socket(socket.AF_UNIX)
listening.bind(path)
listening.listen()
child = os.fork()
if child == 0:
    os.setsid()
    while True:
        with contextlib.suppress(BrokenPipeError):
            listening.accept()[0].sendall(b"NBDMAGIC")
time.sleep(0.2)
open(sys.argv[4], "w").write(str(child))
"""


class Daemons(unittest.TestCase):
    def test_one_that_serves_before_its_starter_has_ended_is_itself_what_is_observed_and_ended(self):
        servers.adopt_orphans()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            program = folder / "daemon"
            program.write_text(DAEMON, encoding="utf-8")
            program.chmod(0o755)
            endpoint = servers.free_endpoint("unix", folder)
            with servers.Running(servers.SERVERS["nbd-server"], str(program), backings.Backing("/x", 1), endpoint,
                                 folder) as running:
                pid = running.pid
                self.assertEqual(str(pid), (folder / servers.PID_FILE).read_text())
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)
            self.assertIsNotNone(running.rusage)


class Figures(unittest.TestCase):
    def test_a_report_of_fio_without_any_request_is_a_failure(self):
        job = {"jobname": "load", "error": 0, "read": {"total_ios": 0}, "write": {"total_ios": 0}}
        self.assertRaises(loads.LoadFailed, loads._fio_figures, {"jobs": [job]}, workloads.ALL[0])

    def test_of_two_loads_the_latency_is_one_s_and_the_work_is_both_s(self):
        found = loads._fio_figures({"jobs": [job("beside", 300, 70), job("load", 100, 20)]}, beside_writes())
        self.assertEqual((found["ios"], found["iops"], found["beside_iops"], found["p99_us"]), (400, 100, 300, 20))

    def test_what_is_written_beside_is_verified_too(self):
        for verified, right in ((300, True), (299, False)):
            report_of_fio = {"jobs": [job("beside", 300, 70, verified), job("load", 1000, 20)]}
            both = {"load": (beside_writes(), 0), "beside": (beside_writes().beside, 300)}
            if right:
                self.assertEqual(loads._fio_figures(report_of_fio, beside_writes(), both)["verified_ios"], 300)
            else:
                self.assertRaises(loads.LoadFailed, loads._fio_figures, report_of_fio, beside_writes(), both)

    def test_of_a_mixed_load_only_what_is_read_back_is_verified(self):
        """A thousand blocks, 300 of them written, 700 read beside that and not compared, and then what is read back."""
        mixed = named("4k mixed depth 32")
        for reads, right in ((700 + 300, True), (700 + 299, False), (700, False)):
            report_of_fio = {"jobs": [job("load", 300, 20, reads)]}
            if right:
                found = loads._fio_figures(report_of_fio, mixed, {"load": (mixed, 1000)})
                self.assertEqual(found["verified_ios"], 300)
            else:
                self.assertRaises(loads.LoadFailed, loads._fio_figures, report_of_fio, mixed, {"load": (mixed, 1000)})

    def test_every_job_that_is_verified_says_so_to_fio(self):
        for backing, how in ((backings.Backing("/x", 8 << 20), "--verify=crc32c"),
                             (backings.Backing("/x", 8 << 20, reads_as_zeroes=True), "--verify_pattern=0x00")):
            for verify in (False, True):
                words = [*loads._job("load", named("4k read depth 32"), backing, None, 1, 1, verify)]
                self.assertEqual(how in words, verify)

    def test_what_nobody_verified_has_failed(self):
        plan = run.Plan([], [], {}, 1, 1, Path("/x"), verify=True)
        for verified in (0, 1):
            with mock.patch("loads.run", return_value={"verified_ios": verified}):
                if verified:
                    measure._figures(plan, None, None, None, 1)
                else:
                    self.assertRaises(loads.LoadFailed, measure._figures, plan, None, None, None, 1)

    def test_a_reader_keeps_to_the_data_and_a_writer_into_holes_to_the_hole(self):
        backing = backings.Backing("/x", 8 << 20, hole_begin=3 << 20)
        for workload, offset, size in ((beside_writes(), 0, 3 << 20), (beside_writes().beside, 3 << 20, 5 << 20)):
            words = [*loads._job("load", workload, backing, None, 1, 1, False)]
            self.assertLess({f"--offset={offset}", f"--size={size}"}, set(words))

    def test_a_writer_into_holes_comes_to_no_block_twice(self):
        self.assertIn("--random_generator=lfsr", [*loads._job("load", beside_writes().beside, backings.Backing(
            "/x", 8 << 20, hole_begin=3 << 20), None, 1, 1, False)])

    def test_there_is_a_hole_whenever_a_measurement_begins(self):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            path = Path(folder) / "image"
            backings.fill(path, 4 << 20)
            backings.prepare(backings.Backing(str(path), 4 << 20, hole_begin=1 << 20), beside_writes())
            self.assertEqual(path.stat().st_size, 4 << 20)
            self.assertLess(path.stat().st_blocks * 512, 2 << 20)

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

    def test_nobody_waits_for_a_child_that_stays(self):
        for name, waits in (("aionbd", False), ("nbd-server", True)):
            with subprocess.Popen(["sleep", "60"]) as child, mock.patch("observe.time.sleep") as sleep:
                running = mock.Mock(pid=os.getpid(), server=servers.SERVERS[name])
                sleep.side_effect = lambda _: child.kill() or child.wait()
                observe.Observation(running)._wait_for_children()
                child.kill()
            self.assertEqual(sleep.called, waits, name)

    def test_a_strace_that_does_not_end_is_given_up(self):
        with tempfile.TemporaryDirectory() as folder:
            calls = observe.SystemCalls(os.getpid(), folder)
            calls._strace = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
            with mock.patch("observe.STRACE_PATIENCE_S", 0.1), self.assertRaisesRegex(RuntimeError, "strace did not end"):
                calls.__exit__()
            self.assertIsNotNone(calls._strace.returncode)

    def test_sleeping_is_a_context_switch(self):
        before = observe.living_switches(os.getpid())
        for _ in range(20):
            time.sleep(0.001)
        self.assertGreaterEqual(observe.living_switches(os.getpid()) - before, 20)

    def test_numbers_in_the_json_are_short(self):
        self.assertTrue(re.fullmatch(r"1234\.6", str(report._rounded({"a": 1234.5678})["a"])))


if __name__ == "__main__":
    unittest.main()
