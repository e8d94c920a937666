"""Runs one load against one target, and gives its figures in the same shape whatever made it."""
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import verification
from backings import NotAvailable, ServerLacks

GRACE_S = 120  # beyond the time a load should take


class LoadFailed(Exception):
    pass


def check(workload):
    """Raises NotAvailable, before anybody has gone to the trouble of a file."""
    if workload.load == "copy" and shutil.which("nbdcopy") is None:
        raise NotAvailable("no nbdcopy here, which is in libnbd-bin")


def _run(command, timeout_s):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"{Path(str(command[0])).name} did not end") from None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["nothing"]
        raise LoadFailed(f"{Path(str(command[0])).name} failed with {done.returncode}: {' / '.join(said[-3:])}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- fio ----------------------------------------------------------------------------------------------------------

def _range(workload, backing):
    """(where it begins, its length)."""
    if workload.into_holes:
        return backing.hole_begin, backing.size - backing.hole_begin
    return 0, backing.hole_begin or backing.size


def _job(name, workload, backing, target, seconds, seed, verify):
    """The options of one job. Everything is said for each, its engine too: jobs share nothing but the process."""
    begin, size = _range(workload, backing)
    yield from (f"--name={name}", f"--rw={workload.rw}", f"--bs={workload.block}", f"--iodepth={workload.depth}",
                f"--numjobs={workload.connections}", "--percentile_list=50:99:99.9", f"--randseed={seed}")
    if workload.connections > 1:
        yield "--group_reporting=1"
    if workload.rw == "randrw":
        yield "--rwmixread=70"
    if workload.fua:  # of the file itself; fio's nbd engine knows no FUA
        yield "--sync=dsync"
    if workload.flush_every:
        yield f"--fsync={workload.flush_every}"
    if workload.rate:
        yield f"--rate_iops={workload.rate}"
    if verify and workload.writes:
        yield from verification.of_writer(begin, verification.bytes_of_writer(workload, size, seconds))
    else:
        yield from (f"--offset={begin}", f"--size={size}", f"--runtime={round(seconds * 1000)}ms",
                    "--unified_rw_reporting=1")
        # Without a map of the blocks that were visited: it would be most of what fio does. A generator that comes to
        # each block once needs none either; at the end of the holes it ends.
        yield from ["--random_generator=lfsr"] if workload.into_holes else \
            ["--random_generator=tausworthe", "--norandommap=1", "--time_based=1"]
        if verify:
            yield from verification.of_reader(backing)
    if target is None:
        yield from ("--ioengine=libaio", "--direct=1", f"--filename={backing.path}", "--allow_file_create=0")
    else:
        yield from ("--ioengine=nbd", f"--uri={target.uri}")


def _job_figures(job):
    if job["error"]:
        raise LoadFailed(f"fio reports error {job['error']}")
    # With verification reads and writes are told apart, so that it shows whether there was any.
    parts = [job[key] for key in ("mixed", "write", "read") if job.get(key, {}).get("total_ios")]
    if not parts:
        raise LoadFailed("fio did nothing")
    main = parts[0]
    percentiles = main["clat_ns"]["percentile"]
    return {"ios": main["total_ios"], "iops": main["iops"], "bytes_per_s": main["bw_bytes"],
            "p50_us": percentiles["50.000000"] / 1000, "p99_us": percentiles["99.000000"] / 1000,
            "p999_us": percentiles["99.900000"] / 1000, "verified_ios": 0}


def _verified_ios(workload, job, blocks):
    """How many requests' data fio has compared with what they should be. `blocks`: a writer's share of all
    connections. Raises LoadFailed when a write was left out."""
    if not workload.writes:
        return job["mixed"]["total_ios"]  # each, at once; the first that is wrong ends it
    written, verified = job["write"]["total_ios"], job["read"]["total_ios"]
    if workload.reads:
        # What it reads among its writes it does not compare. It comes to each block once, to read or to write, and
        # then reads back what was written.
        verified -= blocks - written
    if verified < written:
        raise LoadFailed(f"of {written} writes only {verified} were verified")
    return verified


def _fio_figures(report, workload, verify=None):
    """`verify`: {name of a job: (its workload, its blocks)} where all are verified."""
    jobs = {job["jobname"]: job for job in report["jobs"]}
    figures = _job_figures(jobs["load"])
    if workload.beside:
        beside = _job_figures(jobs["beside"])
        # What the server does, it does for both.
        figures.update(ios=figures["ios"] + beside["ios"], beside_iops=beside["iops"])
    if verify:
        # One that was not verified at all must not hide behind the other.
        figures["verified_ios"] = min(_verified_ios(each, jobs[name], blocks)
                                      for name, (each, blocks) in verify.items())
    return figures


def _blocks(workload, backing, seconds):
    _, size = _range(workload, backing)
    return workload.connections * verification.bytes_of_writer(workload, size, seconds) // workload.block


def _fio(workload, backing, target, seconds, seed, verify):
    if target is None and not backing.path:
        raise NotAvailable("no null device")
    words = [*(target.endpoint.client_prefix() if target else []), "fio", "--output-format=json"]
    if workload.beside:
        words += _job("beside", workload.beside, backing, target, seconds, seed + 1, verify)
    words += _job("load", workload, backing, target, seconds, seed, verify)
    output, client_cpu_s = _run(words, seconds + GRACE_S)
    jobs = {"load": workload, **({"beside": workload.beside} if workload.beside else {})}
    verified = {name: (each, _blocks(each, backing, seconds)) for name, each in jobs.items()} if verify else None
    return _fio_figures(json.loads(output[output.index("{"):]), workload, verified), client_cpu_s


# --- The others ---------------------------------------------------------------------------------------------------

def _client(workload, backing, target, seconds, seed, verify):
    if target is None and workload.backing == "loop4096":
        raise NotAvailable("the device itself refuses unaligned requests")
    if target is None and workload.replies != "any":
        raise NotAvailable("there are no replies without a server")
    if target is None:
        return _fio(workload, backing, None, seconds, seed, verify)
    settings = {"path": target.endpoint.path, "port": target.endpoint.port, "export": target.export,
                "rw": workload.rw, "block": workload.block, "depth": workload.depth, "seconds": seconds,
                "fua": workload.fua, "replies": workload.replies, "seed": seed,
                "verify": verify, "content": backing.path}
    try:
        output, client_cpu_s = _run([sys.executable, "-B", Path(__file__).parent / "client.py", json.dumps(settings)],
                                    seconds + GRACE_S)
    finally:
        if verify and workload.writes:  # Its blocks have none.
            verification.stamp(backing.path, backing.size)
    figures = json.loads(output)
    if "unavailable" in figures:
        raise ServerLacks(figures["unavailable"])
    return figures, client_cpu_s


def _copy(workload, backing, target, seconds, _, verify):
    if target is None:
        raise NotAvailable("there is nothing to copy from or to without a server")
    # Into nothing, so that it takes no time; but what is verified must be somewhere.
    copied = Path(f"{backing.path}.copied") if verify and workload.rw == "out" else None
    words = ["--flush", backing.source, target.uri] if workload.rw == "in" else ["--", target.uri, copied or "null:"]
    try:
        begin = time.monotonic()
        _, client_cpu_s = _run(["nbdcopy", *words], seconds + 10 * GRACE_S)
        took_s = time.monotonic() - begin
        if verify:
            _run(["cmp", backing.source if workload.rw == "in" else copied, backing.path], GRACE_S)
    finally:
        if copied:
            copied.unlink(missing_ok=True)
    ios = backing.size // workload.block  # nbdcopy's requests have 256 KiB; holes it may skip.
    return {"ios": ios, "iops": ios / took_s, "bytes_per_s": backing.size / took_s, "p50_us": None, "p99_us": None,
            "p999_us": None, "verified_ios": ios if verify else 0}, client_cpu_s


_KINDS = {"fio": _fio, "client": _client, "copy": _copy}


def run(workload, backing, target, seconds, seed=1, verify=False):
    """As _job_figures(), with the client's processor time. `target` is a running server, or None for the file itself.
    Raises LoadFailed or NotAvailable."""
    figures, client_cpu_s = _KINDS[workload.load](workload, backing, target, seconds, seed, verify)
    figures["client_cpu_us_per_io"] = client_cpu_s * 1e6 / max(1, figures["ios"])
    return figures
