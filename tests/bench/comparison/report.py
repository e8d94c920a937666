"""What a run found, as a table for people and as JSON for programs."""
import json

import goals
import servers

COLUMNS = (("IOPS", "iops", 0), ("MB/s", "mb_per_s", 0), ("p50 us", "p50_us", 0), ("p99", "p99_us", 0),
           ("p99.9", "p999_us", 0), ("CPU us", "cpu_us_per_io", 1), ("client", "client_cpu_us_per_io", 1),
           ("switch", "switches_per_io", 2), ("syscall", "syscalls_per_io", 2), ("MiB", "peak_mib", 0),
           ("cached", "cache_growth_mib", 0))
QUIET_LOAD = 0.5  # for each processor: with less, there was one for whoever measured
OF_TWO_LOADS = (("beside", "beside_iops", 0),)

LEGEND = """\
Medians. CPU us, switch, syscall: of the server, for each I/O; client: the processor time of whoever made the load.
MiB: peak memory. cached: MiB by which the page cache of the file grew. +-: half the distance between the slowest and
the fastest round. /qemu, /raw: our rate (CPU: our processor time) divided by that of qemu-nbd with native AIO, and
by that of fio's libaio on the file itself. ~: answers writes before they have reached the device, so that a host that
dies takes them along: such rows are not compared where nothing asks for more."""
LEGEND_OF_TWO_LOADS = """\
beside: I/Os per second of the load on the other connection. CPU us, client and switch are then for each I/O of both."""


def _number(cell, metric, digits):
    if cell[metric] is None:
        return "-"
    return f"{cell[metric]['median']:,.{digits}f}"


def _spread(cell):
    rate = cell["iops"]
    return "-" if cell["rounds"] < 2 else f"{50 * (rate['greatest'] - rate['least']) / rate['median']:.0f}%"


def _columns(workloads):
    return COLUMNS + (OF_TWO_LOADS if any(workload.beside for workload in workloads) else ())


def _ratio(row, metric, server, goal_of):
    """Ours against theirs, and what the goal says of it."""
    if "aionbd" not in row or server not in row:
        return ""
    found = goals.ratio(goals.value_of(row["aionbd"], metric), goals.value_of(row[server], metric))
    if found is None:
        return ""
    goal = goal_of.get((metric, server))
    if goal is None:
        return f"{found:.2f}"
    sign = "<=" if metric == goals.CPU else ">="
    return f"{found:.2f} {'ok' if goal['met'] else 'MISSED'} ({sign}{goal['bound']:g})"


def _beside_line(workload, row, alone):
    """What it does to a reader that somebody else writes."""
    told = [f"{name} {goals.ratio(goals.value_of(cell, 'p99_us'), goals.value_of(alone[name], 'p99_us')):.1f}"
            for name, cell in row.items() if name in alone]
    if told:
        yield "   p99 beside / alone: " + "   ".join(told)


def heading(workload):
    return workload.name + (f"  ({workload.note})" if workload.note else "")


def _workload_lines(workload, cells, judged, columns):
    row = cells[workload.name]
    goal_of = {(goal["metric"], goal["against"]): goal for goal in judged if goal["workload"] == workload.name}
    yield f"\n{heading(workload)}"
    for name, cell in row.items():
        line = f"  {('~' if servers.is_apart(name, workload) else ' ') + name:17}"
        line += "".join(f"{_number(cell, metric, digits):>9}" for _, metric, digits in columns)
        yield f"{line}{_spread(cell):>6}"
    ratios = [("rate/qemu", goals.RATE, "qemu-native"), ("CPU/qemu", goals.CPU, "qemu-native"),
              ("rate/raw", goals.RATE, "raw")]
    if workload.beside:
        ratios += [("p99/qemu", "p99_us", "qemu-native"), ("p99/raw", "p99_us", "raw")]
    if workload.backing == "null":
        ratios += [("rate/nbdkit", goals.RATE, "nbdkit"), ("CPU/nbdkit", goals.CPU, "nbdkit")]
    told = [f"{label} {text}" for label, metric, server in ratios if (text := _ratio(row, metric, server, goal_of))]
    told += [f"{goal['goal']}: {goal['ratio']:.2f} {'ok' if goal['met'] else 'MISSED'}"
             for goal in judged if goal["workload"] == workload.name and goal["against"] == "aionbd"]
    if told:
        yield "   aionbd: " + "   ".join(told)
    if workload.beside:
        yield from _beside_line(workload, row, cells.get(workload.alone, {}))


def table(workloads, cells, judged, lacking):
    columns = _columns(workloads)
    head = " " * 19 + "".join(f"{title:>9}" for title, _, _ in columns) + f"{'+-':>6}"
    lines = [head]
    for workload in workloads:
        if cells.get(workload.name):
            lines += _workload_lines(workload, cells, judged, columns)
    lines += ["", LEGEND]
    if len(columns) > len(COLUMNS):
        lines.append(LEGEND_OF_TWO_LOADS)
    if lacking:
        lines += ["", "Not measured:", *_lacking_lines(lacking)]
    return "\n".join(lines)


def _lacking_lines(lacking):
    """The same reason once, with all that it concerns."""
    concerned, alike = {}, {}
    for (workload, server), why in lacking.items():
        concerned.setdefault((server, why), []).append(workload)
    for (server, why), names in concerned.items():
        alike.setdefault((why, tuple(names)), []).append(server)
    for (why, names), of_servers in alike.items():
        yield f"  {', '.join(of_servers)}: {why} ({', '.join(names)})"


def _behind_lines(title, found):
    if found:
        yield title
        for each in sorted(found, key=lambda one: one["ratio"]):
            level = "  (level: within the noise)" if each["within_noise"] else ""
            yield f"  {each['ratio']:.2f} x {each['server']}: {each['workload']}{level}"


def verdict(judged, equal, apart):
    missed = [goal for goal in judged if not goal["met"]]
    lines = [f"\nGoals: {len(judged) - len(missed)} of {len(judged)} met."]
    lines += [f"  missed: {goal['workload']}: {goal['goal']}, is {goal['ratio']:.2f}" for goal in missed]
    lines += _behind_lines("Behind a server that promises as much:", equal)
    if not equal:
        lines.append("Behind no server that promises as much.")
    lines += _behind_lines("Behind a server that answers writes from the page cache:", apart)
    return "\n".join(lines)


def warning_of_load(loads, processors):
    """Of what others did in the minute before the first round. From the second round on, the load is our own work."""
    if not loads or loads[0] <= QUIET_LOAD * processors:
        return ""
    return (f"\n\nTHE MACHINE WAS BUSY: in the minute before the first round, before anything of this run, "
            f"{loads[0]:.1f} threads on\naverage used its {processors} processors and its disks, or waited for them. "
            "If whoever that was went on, rates are worth\nlittle.")


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def named(reasons):
    """{where, a tuple: why} with keys for JSON, which are text."""
    return {", ".join(map(str, where)): why for where, why in reasons.items()}


def as_json(result):
    return json.dumps(_rounded(result), indent=1) + "\n"
