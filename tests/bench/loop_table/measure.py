"""Measures everybody in the guest: for each round, for each workload, for each way to the image, one run of fio.

Each run starts from nothing: caches dropped, the way set up, ext4 mounted. Taken down again after it. What is counted:
fio's I/Os per second (for writes until the data is synced), requests at the device, context switches of the machine and
of those who serve, their processor time, and what the page cache holds at the end of fio.
"""
import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

WORKLOADS = ("randread", "read", "randwrite", "write")
MOUNT = Path("/mnt/nbd")
JOBS = 4
PORT = "10809"
PATIENCE_S = 60
PID_FILE = Path("/tmp/daemon.pid")


def run(*command):
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


class Way:
    """How the image becomes a block device. `serves` tells the threads that do it, by the name of their process."""

    def __init__(self, name, process, command=None, direct_loop=None, export=""):
        self.name, self._process, self._command, self._export = name, process, command, export
        self._direct_loop = direct_loop

    @contextlib.contextmanager
    def device(self, image):
        if self._command is None:
            found = subprocess.run(["losetup", "--find", "--show", f"--direct-io={self._direct_loop}", image],
                                   check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            try:
                yield found
            finally:
                run("losetup", "--detach", found)
            return
        PID_FILE.unlink(missing_ok=True)
        server = subprocess.Popen(self._command(image), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            attach(self._export)
            try:
                yield "/dev/nbd0"
            finally:
                run("nbd-client", "-d", "/dev/nbd0")
                wait_until(lambda: not Path("/sys/block/nbd0/pid").exists(), "nbd0 goes")
        finally:
            server.terminate()
            server.wait()
            if PID_FILE.exists():  # It had gone to the background.
                number = int(PID_FILE.read_text())
                os.kill(number, signal.SIGTERM)
                wait_until(lambda: not Path(f"/proc/{number}").exists(), f"{self.name} ends")

    def tasks(self):
        """The folders in /proc of the threads that serve."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().startswith(self._process):
                    yield from (process / "task").iterdir()


def attach(export):
    deadline = time.monotonic() + PATIENCE_S
    while subprocess.run(["nbd-client", "localhost", PORT, "/dev/nbd0", *(["-N", export] if export else [])],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise TimeoutError("nbd-client does not get to the server")
        time.sleep(0.2)
    wait_until(lambda: Path("/sys/block/nbd0/size").read_text() != "0\n", "nbd0 comes")


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def nbd_server(image):
    # Flush and FUA are off by default; without them it would not do what the others do.
    config = Path("nbd-server.conf")
    config.write_text(f"[generic]\nlistenaddr = 127.0.0.1\n[disk]\nexportname = {image}\n"
                      "flush = true\nfua = true\ntrim = true\n")
    return ["nbd-server", "-C", str(config.resolve()), "-p", str(PID_FILE)]


def ways(program):
    # The loop driver works in the kernel's unbound workers, which do write-back as well.
    return (
        Way("loop", "kworker/u", direct_loop="off"),
        Way("loop-direct", "kworker/u", direct_loop="on"),
        Way("aionbd", "aionbd", lambda image: [program, image]),
        Way("aionbd-buffered", "aionbd", lambda image: [program, "--io", "buffered", image]),
        Way("nbd-server", "nbd-server", nbd_server, export="disk"),
        Way("nbdkit-file", "nbdkit", lambda image: ["nbdkit", "--foreground", "file", image]),
        Way("qemu-nbd-native", "qemu-nbd", lambda image: [
            "qemu-nbd", "--persistent", "--cache=none", "--aio=native", "--format=raw", "--port", PORT, image]),
    )


# --- What is counted ------------------------------------------------------------------------------------------------

def switches_and_ticks(way):
    """For each thread that serves: context switches, and processor time in ticks."""
    counted = {}
    for task in way.tasks():
        with contextlib.suppress(OSError):
            switches = sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text())))
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            counted[task.name] = (switches, int(fields[11]) + int(fields[12]))
    return counted


def machine_switches():
    return int(re.search(r"^ctxt (\d+)", Path("/proc/stat").read_text(), re.MULTILINE).group(1))


def requests_of(device):
    fields = list(map(int, Path("/sys/block", Path(device).name, "stat").read_text().split()))
    return fields[0] + fields[4] + fields[11] + fields[15]  # reads, writes, discards, flushes


def meminfo_kib(name):
    return int(re.search(rf"^{name}:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE).group(1))


def cached_kib(path):
    found = subprocess.run(["fincore", "--bytes", "--noheadings", "--output", "RES", path], check=True,
                           stdout=subprocess.PIPE, text=True).stdout
    return int(found) // 1024


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


# --- One run --------------------------------------------------------------------------------------------------------

def measure(way, workload, image, seconds, mib):
    drop_caches()
    with way.device(image) as device:
        run("mount", device, MOUNT)
        try:
            requests, switches, served = requests_of(device), machine_switches(), switches_and_ticks(way)
            outcome = json.loads(subprocess.run(
                ["fio", "--name=psync", f"--filename={MOUNT / 'data'}", "--ioengine=psync", f"--rw={workload}",
                 "--bs=4k", f"--size={mib}M", f"--numjobs={JOBS}", f"--runtime={seconds}", "--group_reporting",
                 "--end_fsync=1", "--invalidate=0", "--fallocate=none", "--output-format=json"],
                check=True, stdout=subprocess.PIPE, cwd="/tmp").stdout)["jobs"][0]
            served_then = switches_and_ticks(way)
            direction = outcome["read" if "read" in workload else "write"]
            requests = max(1, requests_of(device) - requests)
            changed = [[then - now for then, now in zip(served_then[task], served.get(task, (0, 0)))]
                       for task in served_then]
            return {
                "iops": direction["total_ios"] / (direction["runtime"] / 1000),
                "ios": direction["total_ios"],
                "requests": requests,
                "machine_switches_per_request": (machine_switches() - switches) / requests,
                "server_switches_per_request": sum(each[0] for each in changed) / requests,
                "server_cpu_us_per_request": sum(each[1] for each in changed) * 1e6 / os.sysconf("SC_CLK_TCK") / requests,
                "image_cached_mib": cached_kib(image) / 1024,
                "buffers_mib": meminfo_kib("Buffers") / 1024,
                "cached_mib": meminfo_kib("Cached") / 1024,
            }
        finally:
            run("umount", MOUNT)


def prepare(way, image, mib):
    """ext4 on the image, with the one file that all jobs of all runs read and write, and no hole in it."""
    with open(image, "wb") as out:
        os.posix_fallocate(out.fileno(), 0, (mib * 5 // 4 + 64) << 20)
    with way.device(image) as device:
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", device)
        run("mount", device, MOUNT)
        run("dd", "if=/dev/urandom", f"of={MOUNT / 'data'}", "bs=1M", f"count={mib}", "conv=fsync", "status=none")
        run("umount", MOUNT)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--mib", type=int, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--program", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--result", required=True)
    given = parser.parse_args()
    everybody = ways(given.program)
    chosen = [way for way in everybody if not given.only or way.name in given.only.split(",")]
    prepare(everybody[1], given.image, given.mib)
    result = {
        "kernel": os.uname().release, "memory_mib": meminfo_kib("MemTotal") // 1024, "jobs": JOBS, "file_mib": given.mib,
        "seconds": given.seconds, "ways": [way.name for way in chosen], "workloads": WORKLOADS, "runs": []}
    for number in range(given.rounds):
        for workload in WORKLOADS:
            # Nobody always comes first after somebody else's writes.
            for way in chosen[number % len(chosen):] + chosen[:number % len(chosen)]:
                found = measure(way, workload, given.image, given.seconds, given.mib)
                result["runs"].append({"round": number, "workload": workload, "way": way.name, **found})
                print(number, workload, way.name, {name: round(value, 1) for name, value in found.items()}, flush=True)
                Path(given.result).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
