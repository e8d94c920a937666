"""What a server costs, seen from outside: processor time, context switches, memory, page cache, system calls."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

KIB = 1 << 10
SAMPLE_PERIOD_S = 0.2
STRACE_PATIENCE_S = 10  # It has been seen to wait for ever for a process whose threads died one after the other.
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def children_of(pid):
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def process_clock_ns(pid):
    """Processor time of a whole process in nanoseconds, of the threads that have ended too: what
    clock_getcpuclockid() names is the scheduler's own sum, which schedstat shows only for those that live."""
    cpuclock_sched = 2
    return time.clock_gettime_ns((~pid << 3) | cpuclock_sched)


def reaped_children_ns(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[13:15]) * 1_000_000_000 // TICKS_PER_S  # cutime and cstime


def cpu_ns(pid):
    total = process_clock_ns(pid) + reaped_children_ns(pid)
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            total += process_clock_ns(child)
    return total


def status_field(pid, field):
    """A number of /proc/PID/status, 0 when the process or the field has gone."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        if found:
            return int(found.group(1))
    return 0


def living_switches(pid):
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += sum(int(n) for n in re.findall(r"_ctxt_switches:\s+(\d+)", (task / "status").read_text()))
    return total


class Observation:
    """Of a running server, around one load: `with Observation(server) as seen: load()`. Its context switches and
    its memory are complete only after the server has ended: finish() then."""

    def __init__(self, running):
        self._running = running
        self._pid = running.pid
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._peak_kib = 0
        self.cpu_ns = 0
        self.switches = None

    def __enter__(self):
        self._wait_for_children()
        self._switches_before = living_switches(self._pid)
        self._cpu_before = cpu_ns(self._pid)
        self._sampler.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._sampler.join()
        self._look_at_memory()
        self._wait_for_children()
        with contextlib.suppress(OSError):
            self.cpu_ns = cpu_ns(self._pid) - self._cpu_before

    def _wait_for_children(self):
        """Of a server with a process for each connection, whose costs are its own until it is reaped. Others may have
        a child that stays (aionbd has one that opens files for it): it is counted while it lives."""
        if not self._running.server.forks_for_connections:
            return
        deadline = time.monotonic() + 2
        while children_of(self._pid) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _look_at_memory(self):
        family = [self._pid, *children_of(self._pid)]
        self._peak_kib = max(self._peak_kib, sum(status_field(pid, "VmHWM") for pid in family))

    def _sample(self):
        while not self._stop.wait(SAMPLE_PERIOD_S):
            self._look_at_memory()

    def finish(self):
        usage = self._running.rusage
        if usage:
            self.switches = max(0, usage.ru_nvcsw + usage.ru_nivcsw - self._switches_before)

    @property
    def peak_bytes(self):
        return self._peak_kib * KIB


class SystemCalls:
    """Counts the system calls of a running server by strace, which slows it down: never while speed is measured."""

    def __init__(self, pid, folder):
        self._report = Path(tempfile.mktemp(dir=folder, suffix=".strace"))
        self._pid = pid
        self.total, self.by_name = None, {}

    def __enter__(self):
        self._strace = subprocess.Popen(
            ["strace", "-f", "-c", "-U", "calls,name", "-o", self._report, "-p", str(self._pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 5
        while not self._all_traced():
            if self._strace.poll() is not None or time.monotonic() > deadline:
                self._strace.kill()
                self._strace.wait()
                raise RuntimeError("strace cannot attach")
            time.sleep(0.01)
        return self

    def _all_traced(self):
        tasks = [task.name for task in Path(f"/proc/{self._pid}/task").iterdir()]
        return all(status_field(f"{self._pid}/task/{task}", "TracerPid") for task in tasks)

    def __exit__(self, *_):
        self._strace.send_signal(signal.SIGINT)
        try:
            self._strace.wait(timeout=STRACE_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._strace.kill()
            self._strace.wait()
            raise RuntimeError("strace did not end") from None
        for line in self._report.read_text().splitlines():
            fields = line.split()
            if len(fields) == 2 and fields[0].isdigit():
                self.by_name[fields[1]] = int(fields[0])
        self.total = self.by_name.pop("total", None)


def cached_bytes(path):
    """Bytes of a file that are in the page cache; None when that cannot be told."""
    program = shutil.which("fincore")
    if program is None or not os.path.isfile(path):
        return None
    done = subprocess.run([program, "--json", "--bytes", "--output", "RES", path], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False)
    if done.returncode != 0:
        return None
    return int(json.loads(done.stdout)["fincore"][0]["res"])
