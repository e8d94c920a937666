"""A whole run: servers interleaved within each workload, workloads within each round, so that a machine that changes
its speed changes it for all."""
import dataclasses
import os
import shutil
import sys
import time
from pathlib import Path

import backings
import loads
import measure
import servers

OVERHEAD_S = 0.9  # of a measurement, at first; then what it turned out to be


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


class Run:
    def __init__(self, plan, made):
        self._plan, self._made = plan, made
        self.rounds = {}    # (workload, server) -> one dictionary of metrics for each round
        self.syscalls = {}  # (workload, server) -> (per I/O, by name)
        self.lacking = {}   # (workload, server) -> why there is nothing
        self.refused = set()  # of these, where the server is why and not the machine
        self.failed = {}    # the same, when it should have worked
        self.loads = []     # the machine's load average at each round's beginning

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
            if plan.count_syscalls:
                self._pass("system calls", 0, progress, self._count)
        except KeyboardInterrupt:
            print("\ninterrupted: what follows is what there is", file=sys.stderr)
        progress.end()

    def _pass(self, title, number, progress, action):
        for workload in self._plan.workloads:
            # Nobody is always first: each round another one begins.
            turn = number % len(self._plan.servers)
            for server in self._plan.servers[turn:] + self._plan.servers[:turn]:
                progress.step(f"{title}: {workload.name}, {server}")
                where = (workload.name, server)
                if where in self.lacking or where in self.failed:
                    continue
                try:
                    action(workload, server, self._made.get(workload.backing), number)
                except backings.NotAvailable as lacking:
                    self.lacking[where] = str(lacking)
                    if isinstance(lacking, backings.ServerLacks):
                        self.refused.add(where)
                except (loads.LoadFailed, RuntimeError, OSError) as failure:
                    self.failed[where] = str(failure)

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


def missing_tools(workloads, verify=False):
    needed = {"fio": "fio", "client": None, "copy": "nbdcopy"}
    wanted = {needed[workload.load] for workload in workloads} - {None}
    if verify:
        wanted.add("fio")  # It writes what is read and verified.
    return sorted(tool for tool in wanted if shutil.which(tool) is None)
