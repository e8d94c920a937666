"""The goals as data, and their judge. A goal compares a cell of aionbd with another cell of the same run."""
import dataclasses

RATE, CPU = "rate", "cpu_us_per_io"
NOISE = 0.08  # Differences below are noise on a shared machine: who is behind by less is told, but as level.


@dataclasses.dataclass(frozen=True)
class Goal:
    workload: str
    metric: str
    at_least: bool
    bound: float
    server: str                  # whom we are compared with
    other_workload: str = ""     # when that is another one
    best_of: tuple = ()          # further workloads of that server: its best counts

    def text(self):
        what = {RATE: "rate", CPU: "CPU per I/O"}[self.metric]
        whom = self.server + (f", {self.other_workload}" if self.other_workload else "")
        return f"{what} {'>=' if self.at_least else '<='} {self.bound:g} x {whom}"


#  workload                      rate / qemu-nbd  CPU / qemu-nbd  rate / raw libaio
_AGAINST_QEMU_AND_RAW = (
    ("4k read depth 1",          1.15,            0.75,           0.90),
    ("4k read depth 32",         1.30,            0.35,           0.70),
    ("4k read depth 32 x 4",     1.70,            0.28,           0.92),
    ("4k write depth 1",         1.05,            0.75,           0.90),
    ("4k write depth 32",        1.40,            0.36,           0.75),
    ("4k write depth 32 x 4",    1.40,            0.35,           0.85),
    ("4k mixed depth 32",        1.40,            0.38,           0.72),
    ("256k read",                1.60,            0.26,           1.3),
    ("256k write",               2.50,            0.20,           1.2),
    ("1m read",                  1.55,            0.30,           1.5),
    ("1m write",                 2.20,            0.25,           1.3),
    ("4k write flush 32 x 8",    2.0,             0.5,            None),
    ("tmpfs 4k read",            2.5,             0.4,            0.55),
)


def _from_table():
    for workload, rate, cpu, raw in _AGAINST_QEMU_AND_RAW:
        yield Goal(workload, RATE, True, rate, "qemu-native")
        yield Goal(workload, CPU, False, cpu, "qemu-native")
        if raw is not None:
            yield Goal(workload, RATE, True, raw, "raw")


def _over_tls():
    for workload in ("256k read", "256k write", "4k read depth 32", "4k write depth 32"):
        for server in ("qemu-native", "nbdkit"):
            yield Goal(f"tls {workload}", RATE, True, 1.3, server)
            yield Goal(f"tls {workload}", CPU, False, 1.0, server)


def _structured_beside_simple():
    """They cost 3 % at most, whichever way that shows: as time, or as the processor's."""
    for read in ("4k read", "256k read", "256k read beside holes"):
        yield Goal(f"structured {read}", RATE, True, 0.97, "aionbd", f"simple {read}")
        yield Goal(f"structured {read}", CPU, False, 1.03, "aionbd", f"simple {read}")


GOALS = (
    *_from_table(),
    Goal("null 4k read", RATE, True, 1.6, "nbdkit"),
    Goal("null 4k read", CPU, False, 0.5, "nbdkit"),
    *_structured_beside_simple(),
    Goal("tcp 4k read depth 1", RATE, True, 0.9, "aionbd", "4k read depth 1"),
    Goal("tcp 4k read depth 32", RATE, True, 0.9, "aionbd", "4k read depth 32"),
    Goal("tcp 4k write depth 32", RATE, True, 0.9, "aionbd", "4k write depth 32"),
    Goal("tcp 256k read", RATE, True, 0.9, "qemu-native", "256k read", best_of=("tcp 256k read",)),
    *_over_tls(),
)


def rate_of(cell):
    """I/Os per second: of one workload, its ratios are those of MB/s too."""
    return cell["iops"]["median"]


def value_of(cell, metric):
    if cell is None:
        return None
    if metric == RATE:
        return rate_of(cell)
    return cell[metric]["median"] if cell[metric] else None


def ratio(ours, theirs):
    return None if ours is None or not theirs else ours / theirs


def _reference(goal, cells):
    names = (goal.other_workload or goal.workload, *goal.best_of)
    values = [value_of(cells.get(name, {}).get(goal.server), goal.metric) for name in names]
    values = [value for value in values if value is not None]
    return (max(values) if goal.at_least else min(values)) if values else None


def judge(cells):
    """Of each goal whose cells were measured: its text, the ratio and whether it is met."""
    judged = []
    for goal in GOALS:
        found = ratio(value_of(cells.get(goal.workload, {}).get("aionbd"), goal.metric), _reference(goal, cells))
        if found is not None:
            met = found >= goal.bound if goal.at_least else found <= goal.bound
            judged.append({"workload": goal.workload, "goal": goal.text(), "against": goal.server,
                           "metric": goal.metric, "bound": goal.bound, "ratio": round(found, 3), "met": met})
    return judged


def behind(cells, workloads, servers):
    """The cells in which a peer that promises as much as we do is faster; and those where one that answers from
    the page cache is, apart. With more threads we are no peer of our own."""
    equal, apart = [], []
    by_name = {workload.name: workload for workload in workloads}
    for name, row in cells.items():
        ours = value_of(row.get("aionbd"), RATE)
        for server, cell in row.items():
            if ours is None or server == "raw" or servers[server].program == "aionbd":
                continue
            found = ratio(ours, rate_of(cell))
            if found is not None and found < 1:
                fair = servers[server].is_as_durable_for(by_name[name])
                (equal if fair else apart).append(
                    {"workload": name, "server": server, "ratio": round(found, 3), "within_noise": found > 1 - NOISE})
    return equal, apart
