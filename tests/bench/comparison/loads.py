"""Runs one load against one target, and gives its figures in the same shape whatever made it."""
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from backings import NotAvailable

GRACE_S = 120  # beyond the time a load should take
VERIFIED_BYTES_4K, VERIFIED_BYTES_LARGE = 16 << 20, 64 << 20
FIGURES = ("ios", "iops", "bytes_per_s", "p50_us", "p99_us", "p999_us", "client_cpu_us_per_io", "verified_ios")


class LoadFailed(Exception):
    pass


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

def _fio_options(workload, backing, seconds, seed, verify):
    yield from ("--name=load", f"--rw={workload.rw}", f"--bs={workload.block}", f"--iodepth={workload.depth}",
                f"--numjobs={workload.connections}", "--group_reporting=1", "--percentile_list=50:99:99.9",
                f"--randseed={seed}", "--output-format=json")
    if workload.rw == "randrw":
        yield "--rwmixread=70"
    if workload.fua:  # of the file itself; fio's nbd engine knows no FUA
        yield "--sync=dsync"
    if workload.flush_every:
        yield f"--fsync={workload.flush_every}"
    if verify and workload.writes:
        each = min(VERIFIED_BYTES_4K if workload.block == 4096 else VERIFIED_BYTES_LARGE, backing.size)
        yield from (f"--size={each // workload.connections}", f"--offset_increment={each // workload.connections}",
                    "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0")
    else:
        # Without a map of the blocks that were visited: it would be most of what fio does.
        yield from (f"--size={backing.size}", "--time_based=1", f"--runtime={seconds}", "--unified_rw_reporting=1",
                    "--norandommap=1", "--random_generator=tausworthe")


def _fio_figures(report):
    job = report["jobs"][0]
    if job["error"]:
        raise LoadFailed(f"fio reports error {job['error']}")
    # With verification reads and writes are told apart, so that it shows whether there was any.
    parts = [job[key] for key in ("mixed", "write", "read") if job.get(key, {}).get("total_ios")]
    if not parts:
        raise LoadFailed("fio did nothing")
    main = parts[0]
    percentiles = main["clat_ns"]["percentile"]
    verified = job["read"]["total_ios"] if "mixed" not in job and "write" in job else 0
    return {"ios": main["total_ios"], "iops": main["iops"], "bytes_per_s": main["bw_bytes"],
            "p50_us": percentiles["50.000000"] / 1000, "p99_us": percentiles["99.000000"] / 1000,
            "p999_us": percentiles["99.900000"] / 1000, "verified_ios": verified}


def _fio(workload, backing, target, seconds, seed, verify):
    if target is None and not backing.path:
        raise NotAvailable("no null device")
    if target is None:
        engine = ["--ioengine=libaio", "--direct=1", f"--filename={backing.path}", "--allow_file_create=0"]
    else:
        engine = ["--ioengine=nbd", f"--uri={target.uri}"]
    prefix = target.endpoint.client_prefix() if target else []
    command = [*prefix, "fio", *_fio_options(workload, backing, seconds, seed, verify), *engine]
    output, client_cpu_s = _run(command, seconds + GRACE_S)
    figures = _fio_figures(json.loads(output[output.index("{"):]))
    if verify and workload.writes and workload.rw != "randrw" and figures["verified_ios"] < figures["ios"]:
        raise LoadFailed(f"of {figures['ios']} writes only {figures['verified_ios']} were verified")
    return figures, client_cpu_s


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
                "verify": verify and workload.writes}
    output, client_cpu_s = _run([sys.executable, "-B", Path(__file__).parent / "client.py", json.dumps(settings)],
                                seconds + GRACE_S)
    figures = json.loads(output)
    if "unavailable" in figures:
        raise NotAvailable(figures["unavailable"])
    return figures, client_cpu_s


def _copy(workload, backing, target, seconds, _, verify):
    if target is None:
        raise NotAvailable("there is nothing to copy from or to without a server")
    words = ["--flush", backing.source, target.uri] if workload.rw == "in" else ["--", target.uri, "null:"]
    begin = time.monotonic()
    _, client_cpu_s = _run(["nbdcopy", *words], seconds + 10 * GRACE_S)
    took_s = time.monotonic() - begin
    verified = 0
    if verify and workload.rw == "in":
        _run(["cmp", "-n", str(backing.size), backing.source, backing.path], GRACE_S)
        verified = backing.size // workload.block
    ios = backing.size // workload.block  # nbdcopy's requests have 256 KiB; holes it may skip.
    return {"ios": ios, "iops": ios / took_s, "bytes_per_s": backing.size / took_s, "p50_us": None, "p99_us": None,
            "p999_us": None, "verified_ios": verified}, client_cpu_s


_KINDS = {"fio": _fio, "client": _client, "copy": _copy}


def run(workload, backing, target, seconds, seed=1, verify=False):
    """The FIGURES. `target` is a running server, or None for the file itself. Raises LoadFailed or NotAvailable."""
    figures, client_cpu_s = _KINDS[workload.load](workload, backing, target, seconds, seed, verify)
    figures["client_cpu_us_per_io"] = client_cpu_s * 1e6 / max(1, figures["ios"])
    return figures
