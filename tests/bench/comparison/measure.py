"""One cell: a workload on a server, once. And what several rounds of it come to."""
import shutil
import statistics

import backings
import loads
import observe
import servers

MIB = 1 << 20
# In the order of the table; of each there is a median, a least and a greatest value, and None if it cannot be had.
METRICS = ("iops", "mb_per_s", "p50_us", "p99_us", "p999_us", "cpu_us_per_io", "client_cpu_us_per_io",
           "switches_per_io", "syscalls_per_io", "peak_mib", "cache_growth_mib", "beside_iops")


def measure(plan, workload, server_name, backing, seed):
    """The metrics of one round, syscalls_per_io excepted."""
    backings.prepare(backing, workload)
    cached_before = observe.cached_bytes(backing.path) if backing.on_disk else None
    if server_name == servers.RAW:
        return _metrics(_figures(plan, workload, backing, None, seed), None, None)
    server = servers.SERVERS[server_name]
    endpoint = _endpoint(plan, workload, server)
    with servers.Running(server, plan.programs[server_name], backing, endpoint, plan.folder) as running:
        with observe.Observation(running) as seen:
            figures = _figures(plan, workload, backing, running, seed)
        growth = None
        if cached_before is not None:
            growth = observe.cached_bytes(backing.path) - cached_before
        running.end()
        seen.finish()
    return _metrics(figures, seen, growth)


def _figures(plan, workload, backing, target, seed):
    figures = loads.run(workload, backing, target, plan.runtime_s, seed, plan.verify)
    if plan.verify and not figures["verified_ios"]:
        raise loads.LoadFailed("nothing of what was read or written was verified")
    return figures


def _endpoint(plan, workload, server):
    if workload.tls and not server.has_tls:
        raise backings.NotAvailable("it is measured without TLS only")
    return servers.free_endpoint(workload.transport, plan.folder, plan.keys if workload.tls else "")


def _metrics(figures, seen, growth):
    ios = max(1, figures["ios"])
    return {"ios": figures["ios"], "verified_ios": figures["verified_ios"], "iops": figures["iops"],
            "mb_per_s": figures["bytes_per_s"] / 1e6, "p50_us": figures["p50_us"], "p99_us": figures["p99_us"],
            "p999_us": figures["p999_us"], "client_cpu_us_per_io": figures["client_cpu_us_per_io"],
            "cpu_us_per_io": seen.cpu_ns / 1000 / ios if seen else None,
            "switches_per_io": seen.switches / ios if seen and seen.switches is not None else None,
            "peak_mib": seen.peak_bytes / MIB if seen else None,
            "cache_growth_mib": None if growth is None else growth / MIB,
            "beside_iops": figures.get("beside_iops")}


def count_system_calls(plan, workload, server_name, backing, seed):
    """System calls per I/O, and the most frequent ones by name; in a run of its own, for strace slows it down."""
    if shutil.which("strace") is None:
        raise backings.NotAvailable("no strace")
    backings.prepare(backing, workload)
    server = servers.SERVERS[server_name]
    endpoint = _endpoint(plan, workload, server)
    with servers.Running(server, plan.programs[server_name], backing, endpoint, plan.folder) as running:
        with observe.SystemCalls(running.pid, plan.folder) as calls:
            figures = loads.run(workload, backing, running, 1, seed)
    if calls.total is None:
        raise backings.NotAvailable("strace counted nothing")
    ios = max(1, figures["ios"])
    often = sorted(calls.by_name.items(), key=lambda pair: -pair[1])[:6]
    return calls.total / ios, {name: round(count / ios, 3) for name, count in often}


def add_system_calls(cell, calls):
    """`calls` as of count_system_calls()."""
    count, by_name = calls
    cell["syscalls_per_io"] = {"median": count, "least": count, "greatest": count}
    cell["syscalls_by_name"] = by_name


def summary(rounds):
    """{metric: {median, least, greatest} or None} of the rounds of one cell."""
    cell = {"rounds": len(rounds)}
    for metric in METRICS:
        values = [each[metric] for each in rounds if each.get(metric) is not None]
        cell[metric] = {"median": statistics.median(values), "least": min(values), "greatest": max(values)} \
            if values else None
    return cell
