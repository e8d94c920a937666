"""What --smoke demands of a run: that it is complete and right, never that it is fast."""
import json

import charts
import growth_report
import measure
import memory
import report
import servers

OF_A_SERVER = {"cpu_us_per_io", "switches_per_io", "peak_mib"}
LATENCIES = ("p50_us", "p99_us", "p999_us")
ALWAYS = {"iops", "mb_per_s", "client_cpu_us_per_io"}


def _wanted(workload, server, count_syscalls):
    wanted = set(ALWAYS)
    if workload.load != "copy":
        wanted |= {*LATENCIES}
    if server != servers.RAW:
        wanted |= OF_A_SERVER | ({"syscalls_per_io"} if count_syscalls else set())
    if workload.beside:
        wanted.add("beside_iops")
    return wanted


def _complaints_on(workload, server, cell, count_syscalls):
    for metric in measure.METRICS:
        if metric not in cell:
            yield f"{metric} is missing"
    for metric in sorted(_wanted(workload, server, count_syscalls)):
        value = cell.get(metric)
        if value is None or not value["median"] > 0:
            yield f"{metric} has no value"
        elif not value["least"] <= value["median"] <= value["greatest"]:
            yield f"the median of {metric} lies outside of its range"
    percentiles = [cell[metric]["median"] for metric in LATENCIES if cell.get(metric)]
    if percentiles != sorted(percentiles):
        yield "the percentiles do not rise"


def complaints(json_path, table, drawn, workloads, plan, done):
    """What is wrong with a run that has ended, as sentences. What the machine lacks is no fault, and what a peer does
    not offer is none; what ours does not is one. That what was read and written is right was seen to while it was
    measured. `drawn` are the charts, None where nobody can draw."""
    cells = json.loads(json_path.read_text(encoding="utf-8"))["cells"]
    headings = table.splitlines()
    for workload in workloads:
        for server in plan.servers:
            where = (workload.name, server)
            cell = cells.get(workload.name, {}).get(server)
            if cell is None:
                if where in done.refused and servers.is_ours(server):
                    yield f"{workload.name}, {server}: {done.lacking[where]}"
                elif where not in done.lacking:
                    why = done.failed.get(where, "not measured, and nobody says why")
                    yield f"{workload.name}, {server}: {why}"
                continue
            yield from (f"{workload.name}, {server}: {what}"
                        for what in _complaints_on(workload, server, cell, plan.count_syscalls))
        if cells.get(workload.name) and report.heading(workload) not in headings:
            yield f"{workload.name} is not in the table"
    if drawn is not None and not drawn and charts.have_a_place(cells):
        yield "no chart came out"


def complaints_on_growth(json_path, text, drawn, options):
    """The same of `growth`, of which aionbd alone is measured here."""
    result = json.loads(json_path.read_text(encoding="utf-8"))
    why = {**result["not_available"], **result["failed"]}
    headings = text.splitlines()
    for curve in options.curves:
        cells = result["curves"].get(curve.name, {}).get("aionbd", {})
        for point in curve.points:
            where = f"{curve.name}, aionbd, {point.place}"
            if str(point.place) in cells:
                yield from (f"{where}: {what}"
                            for what in _complaints_on(point.workload, "aionbd", cells[str(point.place)], False))
            elif where not in why:
                yield f"{where}: not measured, and nobody says why"
        if cells and growth_report.heading(curve) not in headings:
            yield f"{curve.name} is not in the table"
    if options.idle and not any(where.startswith("idle, ") for where in why):
        yield from _complaints_on_idle(result["idle"])
    if drawn is not None and not drawn and result["curves"]:
        yield "no chart came out"


def _complaints_on_idle(idle):
    if idle is None:
        yield "idle connections: not measured, and nobody says why"
    elif not 0 < idle["bytes_each"] <= memory.of_a_connection():
        yield f"idle connections: {idle['bytes_each']} bytes each cannot be"
    elif idle["cpu_ns"] < 0 or idle["context_switches"] < 0:
        yield "idle connections: less than nothing is used by them"
