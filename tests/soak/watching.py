"""What the server uses while clients work: sampled, kept, drawn."""
import contextlib
import csv
import dataclasses
import mmap
import os
import statistics
import threading
import time
from pathlib import Path

import disk

PERIOD_S = 1
PROBES = 20
PROBES_AT_REST, FAST = 300, 5  # the fastest but for so many
REST_S = 3  # for connections to be noticed as gone


class Complaints:
    def __init__(self):
        self._lines = []

    def add(self, line):
        self._lines.append(line)

    def any(self):
        return bool(self._lines)

    def all(self):
        return list(self._lines)


@dataclasses.dataclass
class State:
    memory: int       # bytes resident
    descriptors: int
    threads: int
    latency: float = 0  # of reads, in multiples of what the machine takes for the file itself


def state_of(server):
    folder = Path(f"/proc/{server.pid}")
    return State(server.status("VmRSS"), len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir())))


def at_rest(server, image):
    """When nobody is connected, and what they left has been cleared away."""
    before = None
    for _ in range(20):
        time.sleep(REST_S)
        now = state_of(server)
        if before is not None and now.descriptors == before.descriptors:
            break
        before = now
    now.latency = best_latency(server, image)
    return now


def best_latency(server, image):
    """Of the fastest reads, for what keeps the others is the machine, which others may use; what grows with a server's age
    keeps all."""
    with Probe(server, image) as probe:
        served, direct = zip(*(probe.durations_us(number) for number in range(PROBES_AT_REST)))
    return sorted(served)[FAST] / sorted(direct)[FAST]


class Probe:
    """Reads by way of the server and, for comparison, of the file itself, one after the other."""

    def __init__(self, server, image):
        self._handle = server.connect()
        self._file, self._page = os.open(image.served_path, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096)

    def durations_us(self, number):
        offset = disk.PROBE_OFFSET + number * 4096 % disk.PROBE_SIZE
        begin = time.monotonic_ns()
        self._handle.pread(4096, offset)
        between = time.monotonic_ns()
        os.preadv(self._file, [self._page], offset)
        return (between - begin) / 1000, (time.monotonic_ns() - between) / 1000

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._file)
        self._handle.shutdown()


class Watcher:
    FIELDS = ("seconds", "era", "memory_mib", "descriptors", "threads", "read_p50_us", "read_max_us",
              "file_p50_us")

    def __init__(self):
        self._begin = time.monotonic()
        self._rows = []
        self._era = 0
        self._stop = threading.Event()

    def say(self, text):
        print(f"[{time.monotonic() - self._begin:6.0f} s] {text}", flush=True)

    @contextlib.contextmanager
    def watching(self, server, image):
        self._era += 1
        self._stop.clear()
        sampler = threading.Thread(target=self._sample, args=(server, image))
        sampler.start()
        try:
            yield
        finally:
            self._stop.set()
            sampler.join()

    def _sample(self, server, image):
        with Probe(server, image) as probe:
            while not self._stop.wait(PERIOD_S):
                served, direct = zip(*(probe.durations_us(number) for number in range(PROBES)))
                now = state_of(server)
                self._rows.append((round(time.monotonic() - self._begin, 1), self._era, round(now.memory / (1 << 20), 1),
                                   now.descriptors, now.threads, round(statistics.median(served)), round(max(served)),
                                   round(statistics.median(direct))))

    def write(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "soak.csv", "w", newline="", encoding="utf-8") as opened:
            rows = csv.writer(opened)
            rows.writerow(self.FIELDS)
            rows.writerows(self._rows)
        table = "\n".join(self.table())
        print(table)
        (folder / "soak.txt").write_text(table + "\n", encoding="utf-8")
        with contextlib.suppress(ImportError):
            self._draw(folder / "soak.png")

    def eras(self):
        """The samples of each."""
        return [[row for row in self._rows if row[1] == era] for era in sorted({row[1] for row in self._rows})]

    def table(self):
        """The curves in numbers: each era in quarters."""
        yield "era  seconds  memory, MiB      descriptors      threads  4 KiB read, us   of the file"
        yield "              median  most     median  most              median  worst    median"
        for rows in self.eras():
            quarter = -(-len(rows) // 4)
            for part in (rows[begin:begin + quarter] for begin in range(0, len(rows), quarter)):
                memory, descriptors, threads, usual, worst, direct = zip(*(row[2:] for row in part))
                yield (f"{part[0][1]:3}  {part[-1][0]:7.0f}  {statistics.median(memory):6.1f}  {max(memory):6.1f}   "
                       f"{statistics.median(descriptors):6.0f}  {max(descriptors):4}   {max(threads):6}   "
                       f"{statistics.median(usual):6.0f}  {max(worst):6}  {statistics.median(direct):8.0f}")

    def _draw(self, path):
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
        figure, plots = pyplot.subplots(3, 1, figsize=(9, 6), sharex=True)
        seconds = [row[0] for row in self._rows]
        for plot, column, title in zip(plots, (2, 3, 5), ("memory, MiB", "descriptors", "4 KiB read, us, median")):
            plot.plot(seconds, [row[column] for row in self._rows], linewidth=0.8)
            plot.set_ylabel(title, fontsize="small")
            plot.set_ylim(bottom=0)
            plot.grid(linewidth=0.3)
        plots[-1].set_xlabel("seconds")
        figure.tight_layout()
        figure.savefig(path, dpi=100)
        pyplot.close(figure)
