"""The power goes under a disk that aionbd serves, and what was promised must be there.

    power_cuts.py recorded KIND DISK CUTS ANSWERS BY   has four clients change it until so many requests were answered, all of
                                                       which is logged, and makes so many cuts at random points of the log;
                                                       what is promised is so by "flush", "fua" or "both"
    power_cuts.py live KIND DISK CUTS BY               so many cuts while requests are made: nothing reaches the disk any more
                                                       (dm-flakey), and it loses what is in its cache (null_blk)

KIND is ext4, xfs, raw or raw4096. SEED, in the environment, is another random run; SERVER_PRELOAD goes before the server.
With --until-loss, as the last argument, the first cut that shows a loss is the last. Exits with 3 when something was lost,
torn or not where it belongs. See power.sh for the devices.
"""
import collections
import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import device_mapper
from four_clients import CLIENTS, FourClients, raw_client
from sector_history import History, Judge
from write_log import ReplayedDisk, WriteLog

SOCKET = "/tmp/power.sock"
MOUNTED = "/mnt/power"
IMAGE = f"{MOUNTED}/disk.img"
DISK_SECTORS = 131072
LOG, REPLAYED, SCRATCH = "/dev/ram1", "/dev/ram2", "/dev/ram3"
POWER_SWITCH = Path("/sys/kernel/config/nullb/power/power")
# The end is no multiple of anything, so in a file it goes through the page cache.
SIZE = (2 << 20) + 3 * 512 + 100
SIZE_OF_DISK = (2 << 20) + (16 << 10)
ANSWERS_PER_MARK = 8
THROUGH_SERVER_EACH = 5
LOST = 3
COMPLAINTS_SHOWN = 10

# sector: what a power cut does not tear of what is served. atomic: of the disk below; file systems ask for more. size: of what
# is looked at, which of a disk goes on behind what is changed.
Kind = collections.namedtuple("Kind", "file_system sector atomic trim_granularity size")
KINDS = {
    "ext4": Kind("ext4", 512, 4096, 4096, SIZE),
    "xfs": Kind("xfs", 512, 4096, 4096, SIZE),
    "raw": Kind(None, 512, 512, None, SIZE_OF_DISK),
    "raw4096": Kind(None, 4096, 4096, None, SIZE_OF_DISK),
}

libc = ctypes.CDLL(None, use_errno=True)
chance = random.Random(int(os.environ.get("SEED", "1")))


# --- The server, and what it serves ----------------------------------------------------------------------------------

class Server:
    address = (raw_client.socket.AF_UNIX, SOCKET)

    def __init__(self, path):
        self._log = open("/tmp/power.log", "w+", encoding="utf-8")
        environment = {**os.environ, "LD_PRELOAD": os.environ.get("SERVER_PRELOAD", "")}
        self.process = subprocess.Popen([os.environ["program"], "--threads", "2", "--unix", SOCKET, path],
                                        stderr=self._log, env=environment)
        deadline = time.monotonic() + 30
        while "listening on" not in self.said():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"aionbd {path} does not listen: {self.said()}")
            time.sleep(0.01)

    def said(self):
        return Path(self._log.name).read_text(encoding="utf-8")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait() != 0:
            sys.exit(f"the server did not end well: {self.said()}")

    def content(self, size):
        content = bytearray()
        with raw_client.RawClient.in_transmission(self) as client:
            while len(content) < size:
                length = min(1 << 18, size - len(content))
                _, error, data = client.ask(raw_client.READ, length, offset=len(content), length=length)
                if error:
                    sys.exit(f"reading {length} bytes at {len(content)}: error {error}; {self.said()}")
                content += data
        return bytes(content)


@contextlib.contextmanager
def mounted(kind, device):
    """The path of what is to be served: the file, once the journal was replayed, or the device itself."""
    if not kind.file_system:
        yield device
        return
    system_call(libc.mount, device.encode(), MOUNTED.encode(), kind.file_system.encode(), 0, None)
    try:
        yield IMAGE
    finally:
        system_call(libc.umount2, MOUNTED.encode(), 0)


def system_call(function, *arguments):
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{function.__name__} {arguments}: {os.strerror(ctypes.get_errno())}")


class Result:
    """What the cuts of one run showed."""

    def __init__(self):
        self.cuts = self.lost = self.promised = self.lacking = self.met = 0

    def note(self, judge, content, where):
        """Whether the disk kept its promises."""
        self.cuts += 1
        complaints = list(judge.complaints(content))
        for complaint in complaints[:COMPLAINTS_SHOWN]:
            print(f"{where}: {complaint()}")
        if len(complaints) > COMPLAINTS_SHOWN:
            print(f"{where}: and {len(complaints) - COMPLAINTS_SHOWN} more")
        self.lost += bool(complaints)
        self.lacking += judge.lacking(content)
        return not complaints

    def tell(self, name, more=""):
        print(f"{name}: {self.cuts} cuts{more}; {self.promised} changes were promised, {self.met} met others in a sector; the "
              f"cuts took {self.lacking} sectors' unpromised changes; {self.lost} cuts with losses", flush=True)
        if self.lost:
            sys.exit(LOST)
        if not self.promised or not self.lacking or not self.met:
            sys.exit("nothing was at stake, so nothing was tried")


# --- Cuts of a recording -----------------------------------------------------------------------------------------------

@contextlib.contextmanager
def one_at_a_time():
    """Two flushes at once may come into the log the wrong way round, each with its writes. With one processor, and a kernel
    that is not interrupted by another task, a flush of a disk in memory is over before the next one begins."""
    processor = Path("/sys/devices/system/cpu/cpu1/online")
    preemption = Path("/sys/kernel/debug/sched/preempt")
    processor.write_text("0", encoding="utf-8")
    preemption.write_text("none", encoding="utf-8")
    try:
        yield
    finally:
        preemption.write_text("voluntary", encoding="utf-8")
        processor.write_text("1", encoding="utf-8")


def record(kind, disk, answers, promised_by):
    """The history of what four clients do, and how many changes met."""
    history = History(kind.size)
    with device_mapper.device("recorded", f"0 {DISK_SECTORS} log-writes {disk} {LOG}") as device, \
            mounted(kind, device) as served, one_at_a_time():
        server = Server(served)
        clients = FourClients(SOCKET, SIZE, history, chance, forced_over_plain=False, promised_by=promised_by)

        def mark():
            device_mapper.mark("recorded", history.mark())

        def mark_sometimes():
            if clients.answers % ANSWERS_PER_MARK == 0:
                mark()

        mark()
        if not clients.run(lambda: clients.answers >= answers, mark_sometimes):
            sys.exit(f"the server went away: {server.said()}")
        mark()
        server.kill()
    return history, clients.met


def read_after(device, kind, through_server):
    with mounted(kind, device) as served:
        if not through_server:
            with open(served, "rb") as opened:
                return opened.read(kind.size)
        server = Server(served)
        content = server.content(kind.size)
        server.stop()
        return content


def recorded(name, disk, cuts, answers, promised_by, until_loss=None):
    kind, result = KINDS[name], Result()
    history, result.met = record(kind, disk, int(answers), promised_by)
    log = WriteLog(LOG)
    judge = Judge(history, kind.sector, kind.trim_granularity)
    replayed = ReplayedDisk(log, REPLAYED)
    marks = log.marked()
    if len(marks) != history.marks:
        sys.exit(f"{len(marks)} of {history.marks} marks are in the log: it ended early")
    between_marks = range(marks[0][0] + 1, marks[-1][0] + 2)
    points = sorted(chance.sample(between_marks, min(int(cuts), len(between_marks))))
    cached = judged_marks = 0
    for number, point in enumerate(points):
        while judged_marks < len(marks) and marks[judged_marks][0] < point:
            judge.go_to_mark(marks[judged_marks][1])
            judged_marks += 1
        replayed.go_to(point)
        with device_mapper.device("cut", f"0 {DISK_SECTORS} snapshot {REPLAYED} {SCRATCH} N 8") as after_cut:
            with open(after_cut, "r+b", buffering=0) as device:
                cached += replayed.write_some_cached(device.fileno(), chance, kind.atomic)
            content = read_after(after_cut, kind, number % THROUGH_SERVER_EACH == 0)
        result.promised = judge.promised
        if not result.note(judge, content, f"cut {number}, at entry {point}") and until_loss:
            break
    result.tell(name, f" in a log of {len(log.entries)} entries, {cached} pieces in the disk's cache")
    replayed.go_to(len(log.entries))
    replayed.write_cached()
    different = replayed.first_difference(disk)
    if different is not None:
        sys.exit(f"the log is not what happened: replayed to its end, sector {different} differs from the disk's")


# --- Cuts while it runs ------------------------------------------------------------------------------------------------

class Power:
    """A device over a disk with a cache, whose power can go."""

    def __init__(self, disk):
        self._up = f"0 {DISK_SECTORS} flakey {disk} 0 3600 0"
        self._drops_writes = f"0 {DISK_SECTORS} flakey {disk} 0 0 3600 1 drop_writes"
        self._device = contextlib.ExitStack()
        self.path = self._device.enter_context(device_mapper.device("flakey", self._up))

    def goes(self):
        device_mapper.replace_table("flakey", self._drops_writes)

    def comes_back(self, with_cache):
        if with_cache:
            device_mapper.replace_table("flakey", self._up)
            # Written out, or the next cut could still take it.
            descriptor = os.open(self.path, os.O_RDWR)
            os.fsync(descriptor)
            os.close(descriptor)
            return
        self._device.close()
        # Without power the disk forgets what it has not written from its cache.
        POWER_SWITCH.write_text("0", encoding="utf-8")
        POWER_SWITCH.write_text("1", encoding="utf-8")
        self.path = self._device.enter_context(device_mapper.device("flakey", self._up))

    def close(self):
        self._device.close()


def change_until_the_power_goes(power, server, history, first_number, promised_by):
    """The clients, and after how many answers it went."""
    clients = FourClients(SOCKET, SIZE, history, chance, first_number, promised_by=promised_by)
    cut_at = chance.randrange(10, 150)
    end_at = cut_at + chance.randrange(1, 40)

    def after_answer():
        if clients.answers == cut_at:
            history.mark()
            power.goes()
            history.mark()
        elif clients.answers == end_at:
            server.kill()

    clients.run(lambda: False, after_answer)
    server.kill()
    clients.close()
    if history.marks != 2:
        sys.exit(f"the server went away before the power did: {server.said()}")
    return clients, cut_at


def live(name, disk, cuts, promised_by, _until_loss=None):
    kind, result = KINDS[name], Result()
    number, history = 1, None
    with contextlib.closing(Power(disk)) as power:
        while True:
            with mounted(kind, power.path) as served:
                server = Server(served)
                content = server.content(kind.size)
                if history:
                    judge = Judge(history, kind.sector, kind.trim_granularity)
                    judge.go_to_mark(0)
                    result.promised += judge.promised
                    # What the disk holds then is no beginning of another history.
                    if not result.note(judge, content, f"cut {result.cuts}, after {cut_at} answers"):
                        server.kill()
                        break
                if result.cuts == int(cuts):
                    server.stop()
                    break
                history = History(kind.size, content)
                clients, cut_at = change_until_the_power_goes(power, server, history, number, promised_by)
                number = clients.next_number
                result.met += clients.met
            power.comes_back(with_cache=chance.random() < 0.25)
    result.tell(name)


if __name__ == "__main__":
    {"recorded": recorded, "live": live}[sys.argv[1]](*sys.argv[2:])
