"""The power goes under a disk that aionbd serves, and what was promised must be there.

    power_cuts.py record HISTORY ANSWERS BY  changes the disk behind SOCKET until so many requests were answered, marks
                                             the log of the device `recorded` meanwhile, and keeps the history; what is
                                             promised is so by "flush", "fua" or "both"
    power_cuts.py replay HISTORY KIND CUTS   so many cuts, at random points of what was recorded; --until-loss, as the last
                                             argument, ends with the first that shows a loss
    power_cuts.py live KIND CUTS BY          so many cuts while requests are made, by dm-flakey: device `flakey`

KIND is ext4, xfs or raw. SEED, in the environment, is another random run. Exits with 3 when something was lost, torn or
not where it belongs. See power.sh for the devices.
"""
import contextlib
import ctypes
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import device_mapper
from four_clients import CLIENTS, FourClients, raw_client
from sector_history import SECTOR, History, Judge
from write_log import ReplayedDisk, WriteLog

SOCKET = "/tmp/power.sock"
MOUNTED = "/mnt/power"
IMAGE = f"{MOUNTED}/disk.img"
# The end is no multiple of anything, so it goes through the page cache.
IMAGE_BYTES = (2 << 20) + 3 * SECTOR + 100
DISK_SECTORS = 131072
DISK, LOG, REPLAYED, SCRATCH = "/dev/ram0", "/dev/ram1", "/dev/ram2", "/dev/ram3"
ANSWERS_PER_MARK = 8
# What a power cut does not tear: of a disk its sectors; file systems ask for more of the disk below them.
ATOMIC = {"raw": SECTOR, "ext4": 4096, "xfs": 4096}
TRIM_GRANULARITY = {"raw": None, "ext4": 4096, "xfs": 4096}
THROUGH_SERVER_EACH = 5
LOST = 3
COMPLAINTS_SHOWN = 10

libc = ctypes.CDLL(None, use_errno=True)
chance = random.Random(int(os.environ.get("SEED", "1")))


# --- The server, and what it serves ----------------------------------------------------------------------------------

class Server:
    def __init__(self, path):
        self._log = open("/tmp/power.log", "w+", encoding="utf-8")
        self.process = subprocess.Popen([os.environ["program"], "--threads", "2", "--unix", SOCKET, path],
                                        stderr=self._log)
        deadline = time.monotonic() + 30
        while "listening on" not in self.said():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"aionbd {path} does not listen: {self.said()}")
            time.sleep(0.02)

    def said(self):
        return Path(self._log.name).read_text(encoding="utf-8")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait() != 0:
            sys.exit(f"the server did not end well: {self.said()}")


@contextlib.contextmanager
def mounted(kind, device):
    """The path of what is to be served: the file, once the journal was replayed, or the device itself."""
    if kind == "raw":
        yield device
        return
    system_call(libc.mount, device.encode(), MOUNTED.encode(), kind.encode(), 0, None)
    try:
        yield IMAGE
    finally:
        system_call(libc.umount2, MOUNTED.encode(), 0)


def system_call(function, *arguments):
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{function.__name__} {arguments}: {os.strerror(ctypes.get_errno())}")


def read_directly(path):
    with open(path, "rb") as opened:
        return opened.read(IMAGE_BYTES // SECTOR * SECTOR)


def read_through_server(path):
    server = Server(path)
    server.address = (raw_client.socket.AF_UNIX, SOCKET)
    content = bytearray()
    with raw_client.RawClient.in_transmission(server) as client:
        end = IMAGE_BYTES // SECTOR * SECTOR
        while len(content) < end:
            length = min(1 << 18, end - len(content))
            _, error, data = client.ask(raw_client.READ, length, offset=len(content), length=length)
            if error:
                sys.exit(f"reading {length} bytes at {len(content)} after a cut: error {error}")
            content += data
    server.stop()
    return bytes(content)


def judge_disk(judge, content, where):
    """Whether the disk kept its promises."""
    def read(first, count):
        return content[first * SECTOR:(first + count) * SECTOR]
    complaints = judge.complaints(read)
    for complaint in complaints[:COMPLAINTS_SHOWN]:
        print(f"{where}: {complaint}")
    if len(complaints) > COMPLAINTS_SHOWN:
        print(f"{where}: and {len(complaints) - COMPLAINTS_SHOWN} more")
    return not complaints


# --- Cuts of a recording -----------------------------------------------------------------------------------------------

def record(path, answers, promised_by):
    history = History(IMAGE_BYTES // SECTOR)
    clients = FourClients(SOCKET, history, chance, durable_over_plain=False, promised_by=promised_by)

    def mark():
        device_mapper.mark("recorded", history.mark())

    def mark_sometimes():
        if clients.answers % ANSWERS_PER_MARK == 0:
            mark()

    mark()
    if not clients.run(lambda: clients.answers >= int(answers), mark_sometimes):
        sys.exit("the server went away")
    mark()
    Path(path).write_bytes(pickle.dumps(history))
    print(f"{clients.answers} requests of {CLIENTS} clients were answered, {history.marks} marks")


def replay(path, kind, cuts, until_loss=None):
    log = WriteLog(LOG)
    history = pickle.loads(Path(path).read_bytes())
    judge = Judge(history, TRIM_GRANULARITY[kind])
    disk = ReplayedDisk(log, REPLAYED)
    marks = log.marked()
    if len(marks) != history.marks:
        sys.exit(f"{len(marks)} of {history.marks} marks are in the log: it ended early")
    between_marks = range(marks[0][0] + 1, marks[-1][0] + 2)
    points = sorted(chance.sample(between_marks, min(int(cuts), len(between_marks))))
    lost = cached = judged_marks = 0
    for number, point in enumerate(points):
        while judged_marks < len(marks) and marks[judged_marks][0] < point:
            judge.go_to_mark(marks[judged_marks][1])
            judged_marks += 1
        disk.go_to(point)
        with device_mapper.device("cut", f"0 {DISK_SECTORS} snapshot {REPLAYED} {SCRATCH} N 8") as after_cut:
            with open(after_cut, "r+b", buffering=0) as device:
                cached += disk.write_some_cached(device.fileno(), chance, ATOMIC[kind])
            with mounted(kind, after_cut) as served:
                through = read_through_server if number % THROUGH_SERVER_EACH == 0 else read_directly
                content = through(served)
        lost += not judge_disk(judge, content, f"cut {number}, at entry {point}")
        if lost and until_loss:
            break
    print(f"{kind}: {number + 1} cuts in a log of {len(log.entries)} entries; {judge.promised} changes were promised, "
          f"{cached} pieces in the disk's cache were at stake; {lost} cuts with losses")
    if lost:
        sys.exit(LOST)
    if not judge.promised or not cached:
        sys.exit("nothing was at stake, so nothing was tried")
    disk.go_to(len(log.entries))
    disk.write_cached()
    different = disk.first_difference(DISK)
    if different is not None:
        sys.exit(f"the log is not what happened: replayed to its end, sector {different} differs from the disk's")


# --- Cuts while it runs ------------------------------------------------------------------------------------------------

UP = f"0 {DISK_SECTORS} flakey {DISK} 0 3600 0"
DROPS_WRITES = f"0 {DISK_SECTORS} flakey {DISK} 0 0 3600 1 drop_writes"


def live(kind, cuts, promised_by):
    held, number, lost, promised = None, 1, 0, 0
    for cut in range(int(cuts)):
        history = History(IMAGE_BYTES // SECTOR, held)
        with mounted(kind, "/dev/mapper/flakey") as served:
            server = Server(served)
            clients = FourClients(SOCKET, history, chance, number, promised_by=promised_by)
            cut_at = chance.randrange(20, 400)
            end_at = cut_at + chance.randrange(1, 100)

            def after_answer():
                if clients.answers == cut_at:
                    history.mark()
                    device_mapper.replace_table("flakey", DROPS_WRITES)
                    history.mark()
                elif clients.answers == end_at:
                    server.kill()

            clients.run(lambda: False, after_answer)
            server.kill()
            number = clients.next_number
        device_mapper.replace_table("flakey", UP)
        judge = Judge(history, TRIM_GRANULARITY[kind])
        judge.go_to_mark(0)
        promised += judge.promised
        with mounted(kind, "/dev/mapper/flakey") as served:
            content = read_through_server(served)
        if judge_disk(judge, content, f"cut {cut}, after {cut_at} answers"):
            held = judge.held_now(lambda first, count: content[first * SECTOR:(first + count) * SECTOR])
        else:
            lost += 1
            break
    print(f"{kind}: {cut + 1} cuts; {promised} changes were promised; {lost} cuts with losses")
    if lost:
        sys.exit(LOST)
    if not promised:
        sys.exit("nothing was at stake, so nothing was tried")


if __name__ == "__main__":
    {"record": record, "replay": replay, "live": live}[sys.argv[1]](*sys.argv[2:])
