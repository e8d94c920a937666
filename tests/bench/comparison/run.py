"""A whole run: servers interleaved within each workload, workloads within each round, so that a machine that changes
its speed changes it for all."""
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import backings
import loads
import machine
import measure
import servers

OVERHEAD_S = 0.9  # of a measurement, at first; then what it turned out to be

# Of one measurement: what it cannot do, however badly, is lose the others.
WENT_WRONG = (loads.LoadFailed, RuntimeError, OSError, EOFError, ValueError, LookupError, subprocess.SubprocessError)


@dataclasses.dataclass
class Plan:
    workloads: list
    servers: list          # names, raw among them
    programs: dict         # name -> path
    rounds: int
    runtime_s: float
    folder: Path           # for sockets and logs
    verify: bool = False
    count_syscalls: bool = False
    keys: str = ""         # for workloads with TLS; see servers.make_keys()
    hidden: dict = dataclasses.field(default_factory=dict)  # see machine.folders_to_hide()

    def told(self, why):
        """A reason as it is kept."""
        return machine.without_folders(str(why), self.hidden)


class Progress:
    """One line on standard error for each measurement, with the time that is left."""

    def __init__(self, total, expected_s):
        self._total, self._expected_s = total, expected_s
        self._done = 0
        self._begin = time.monotonic()

    def step(self, text):
        elapsed = time.monotonic() - self._begin
        # The first few measurements say little about the rest.
        each = (elapsed + 5 * self._expected_s) / (self._done + 5)
        left = int(each * (self._total - self._done))
        self._done += 1
        line = f"[{self._done}/{self._total}] {text}, {left // 60}:{left % 60:02} left"
        if sys.stderr.isatty():
            print(f"\r{line:78}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self):
        if sys.stderr.isatty():
            print("\r" + " " * 78 + "\r", end="", file=sys.stderr)


def in_turn(names, number):
    """Nobody is always first: each round another one begins."""
    turn = number % len(names)
    return names[turn:] + names[:turn]


class Run:
    def __init__(self, plan, made):
        self._plan, self._made = plan, made
        self.rounds = {}    # (workload, server) -> one dictionary of metrics for each round
        self.syscalls = {}  # (workload, server) -> (per I/O, by name)
        self.lacking = {}   # (workload, server) -> why there is nothing
        self.refused = set()  # of these, where the server is why and not the machine
        self.failed = {}    # the same, when it should have worked
        self.loads = []     # the machine's load average at each round's beginning
        self.rounds_done = 0
        self.interrupted = False

    def go(self):
        plan = self._plan
        passes = plan.rounds + plan.count_syscalls
        total = passes * len(plan.workloads) * len(plan.servers)
        progress = Progress(total, plan.runtime_s + OVERHEAD_S)
        try:
            for number in range(plan.rounds):
                self.loads.append(os.getloadavg()[0])
                backings.drop_all_caches()
                self._pass(f"round {number + 1} of {plan.rounds}", number, progress, self._measure)
                self.rounds_done += 1
            if plan.count_syscalls:
                self._pass("system calls", 0, progress, self._count)
        except KeyboardInterrupt:
            self.interrupted = True
            print("\ninterrupted: what follows is what there is", file=sys.stderr)
        progress.end()

    def _pass(self, title, number, progress, action):
        plan = self._plan
        for workload in plan.workloads:
            for server in in_turn(plan.servers, number):
                progress.step(f"{title}: {workload.name}, {server}")
                where = (workload.name, server)
                if where in self.lacking or where in self.failed:
                    continue
                try:
                    loads.check(workload)
                    action(workload, server, self._made.get(workload.backing), number)
                except backings.NotAvailable as lacking:
                    self.lacking[where] = plan.told(lacking)
                    if isinstance(lacking, backings.ServerLacks):
                        self.refused.add(where)
                except WENT_WRONG as failure:
                    self.failed[where] = plan.told(failure)

    def _measure(self, workload, server, backing, number):
        metrics = measure.measure(self._plan, workload, server, backing, number + 1)
        self.rounds.setdefault((workload.name, server), []).append(metrics)

    def _count(self, workload, server, backing, _):
        if server != servers.RAW:
            self.syscalls[workload.name, server] = measure.count_system_calls(self._plan, workload, server, backing, 1)

    def cells(self):
        """{workload: {server: summary}} in the order of the plan."""
        cells = {}
        for workload in self._plan.workloads:
            for server in self._plan.servers:
                where = (workload.name, server)
                if where in self.rounds:
                    cell = measure.summary(self.rounds[where])
                    if where in self.syscalls:
                        measure.add_system_calls(cell, self.syscalls[where])
                    cells.setdefault(workload.name, {})[server] = cell
        return cells


def lacks_fio(workloads, verify=False):
    """Whether it is wanted here, and is not there. It writes what is read and verified, too."""
    return shutil.which("fio") is None and (verify or any(workload.load != "copy" for workload in workloads))
