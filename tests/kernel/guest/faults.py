"""What clients are told, and what the log says, when what lies below the server fails.

    faults.py bad-spot OFFSET LENGTH        these bytes of the export fail to be read and written, the others do not
    faults.py unreadable-spot OFFSET LENGTH these only fail to be read
    faults.py failed-sync NAME DISK         a while in which device NAME, of dm-flakey over DISK, fails every write and sync
    faults.py failed-journal NAME DISK      the same, with a file system between it and the server, which then gives up
    faults.py vanish PATH                   the disk goes away while requests are made: writes 1 to PATH
    faults.py no-room COMMAND...            there is not room for all of the export, until COMMAND makes some

The server listens at SOCKET, its process is in the environment as SERVER_PID and its log as SERVER_LOG.
"""
import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbd

from device_mapper import replace_table

SOCKET = "/tmp/faults.sock"
KIB, MIB = 1 << 10, 1 << 20
FUA, NO_HOLE = nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE
# Of a disk from which nothing comes back, or a file system that gave up.
REFUSALS = {"EIO", "EPERM"}
REPEATS = 100
PATIENCE_S = 60
# Buffers that were used are kept, up to a bound; as many failures as that would leave ten times as much behind.
MEMORY_MAY_GROW_KIB = 32 << 10


def connect():
    client = nbd.NBD()
    client.connect_uri(f"nbd+unix:///?socket={SOCKET}")
    return client


def leave(*clients):
    for client in clients:
        client.shutdown()


def answer(call, *arguments):
    """What the server said to it: "ok", or the error's name."""
    try:
        call(*arguments)
        return "ok"
    except nbd.Error as error:
        return error.errno


def expect(what, found, wanted):
    if found not in (wanted if isinstance(wanted, (set, tuple)) else {wanted}):
        sys.exit(f"FAILED: {what} is answered {found}, not {wanted}")
    print(f"ok: {what}: {found}")


def pattern(length, value):
    return bytes([value]) * length


def answers_of_all(client, length, offsets, value):
    """Writes all at once, and what each was answered."""
    said = {}

    def keep(offset):
        def completed(error):
            said[offset] = "ok" if error.value == 0 else errno.errorcode[error.value]
            return 1
        return completed

    memory = nbd.Buffer.from_bytearray(bytearray(pattern(length, value)))
    for offset in offsets:
        client.aio_pwrite(memory, offset, completion=keep(offset))
    deadline = time.monotonic() + PATIENCE_S
    while len(said) < len(offsets):
        client.poll(1000)
        if time.monotonic() > deadline:
            sys.exit(f"FAILED: {len(offsets) - len(said)} requests were not answered")
    return said


# --- The server's own ----------------------------------------------------------------------------------------------------

class Watched:
    """The server as it was before, and that it is so again: descriptors, memory, and few lines in the log."""

    def __init__(self):
        self._process = Path("/proc", os.environ["SERVER_PID"])
        connect().pread(512, 0)
        self._began = time.monotonic()
        self._descriptors = self._wait_for_descriptors(0)
        self._memory_kib = self._memory()

    def _memory(self):
        return int(re.search(r"^VmRSS:\s+(\d+) kB", (self._process / "status").read_text(), re.MULTILINE).group(1))

    def _wait_for_descriptors(self, wanted):
        """Until there are no more than those; or, if it is not known how many, until they stay."""
        deadline, count = time.monotonic() + 20, -1
        while time.monotonic() < deadline:
            before, count = count, len(list((self._process / "fd").iterdir()))
            if count <= wanted or (not wanted and count == before):
                break
            time.sleep(0.3)
        return count

    def check(self, sessions, says):
        """sessions: how many met with failures, for each says so once a second at most."""
        now = self._wait_for_descriptors(self._descriptors)
        if now > self._descriptors:
            sys.exit(f"FAILED: {now} descriptors, {self._descriptors} before")
        grown = self._memory() - self._memory_kib
        if grown > MEMORY_MAY_GROW_KIB:
            sys.exit(f"FAILED: memory grew by {grown} KiB")
        lines = [line for line in Path(os.environ["SERVER_LOG"]).read_text().splitlines() if " failed: " in line]
        most = sessions * (int(time.monotonic() - self._began) + 2)
        if not 1 <= len(lines) <= most:
            sys.exit(f"FAILED: {len(lines)} lines on failures, at most {most} were due")
        if not any(re.search(says, line) for line in lines):
            sys.exit(f"FAILED: no line says '{says}':\n" + "\n".join(lines))
        print(f"ok: {now} descriptors, {grown} KiB more memory, {len(lines)} lines on failures, such as: {lines[0]}")


def told_once(told, ignorant):
    """The failed sync was told to the client that asked; the others hear of it once, at a flush or at a durable write."""
    expect("the next flush of the client that was told", answer(told.flush), "ok")
    for number, client in enumerate(ignorant):
        def durable_write():
            client.pwrite(pattern(4 * KIB, 7), 0, FUA)
        first = client.flush if number % 2 == 0 else durable_write
        expect(f"what client {number} asks first for durability", answer(first), "EIO")
        expect("the flush after it", answer(client.flush), "ok")
        expect("the durable write after it", answer(durable_write), "ok")
    expect("a flush of a client that came later", answer(connect().flush), "ok")


# --- Faults --------------------------------------------------------------------------------------------------------------

def bad_spot(offset, length):
    begin, length = int(offset), int(length)
    end = begin + length
    server = Watched()
    client, *others = (connect() for _ in range(4))
    expect("a read of the spot", answer(client.pread, length, begin), "EIO")
    expect("a write to the spot", answer(client.pwrite, pattern(length, 1), begin), "EIO")
    expect("a read that ends in the spot", answer(client.pread, 64 * KIB + length, begin - 64 * KIB), "EIO")
    expect("a write that ends in the spot", answer(client.pwrite, pattern(64 * KIB + 512, 1), begin - 64 * KIB), "EIO")
    before, after = pattern(4 * KIB, 2), pattern(4 * KIB, 3)
    expect("a write before it", answer(client.pwrite, before, begin - len(before), FUA), "ok")
    expect("a write behind it", answer(client.pwrite, after, end, FUA), "ok")
    if client.pread(len(before), begin - len(before)) != before or client.pread(len(after), end) != after:
        sys.exit("FAILED: the neighbours do not hold what was written")

    offsets = range(begin - 30 * length, begin + 30 * length, length)
    for said_offset, said in answers_of_all(client, length, offsets, 4).items():
        if said != ("EIO" if said_offset == begin else "ok"):
            sys.exit(f"FAILED: one of many writes at once, at {said_offset}, is answered {said}")
    print(f"ok: of {len(offsets)} writes at once, the one at the spot fails")

    # A plain write that fails was told of; it makes no flush fail.
    expect("a flush", answer(client.flush), "ok")
    expect("another client's flush", answer(others[0].flush), "ok")
    expect("a durable write to the spot", answer(client.pwrite, pattern(length, 5), begin, FUA), "EIO")
    told_once(client, others)
    if any(answer(client.pread, 2 * MIB, begin - MIB) != "EIO" for _ in range(REPEATS)):
        sys.exit("FAILED: the spot was read")
    leave(client, *others)
    server.check(2, f"of {length} bytes at {begin} failed: Input/output error")


def unreadable_spot(offset, length):
    begin, length = int(offset), int(length)
    server = Watched()
    client, other = connect(), connect()
    expect("a read of the spot", answer(client.pread, length, begin), "EIO")
    expect("a read around the spot", answer(client.pread, 64 * KIB, begin - 32 * KIB), "EIO")
    expect("a read before it", answer(client.pread, 4 * KIB, begin - 4 * KIB), "ok")
    expect("a read behind it", answer(client.pread, 4 * KIB, begin + length), "ok")
    expect("a write of a part of a sector of it", answer(client.pwrite, pattern(100, 1), begin + 50), "EIO")
    # The disk would take whole sectors, were it not for their old bytes. The read that failed is no failed sync.
    expect("a durable write of a part", answer(client.pwrite, pattern(100, 1), begin + 50, FUA), "EIO")
    expect("a write beside it", answer(client.pwrite, pattern(4 * KIB, 1), begin + length, FUA), "ok")
    expect("a flush", answer(client.flush), "ok")
    expect("another client's flush", answer(other.flush), "ok")
    if any(answer(client.pread, 2 * MIB, begin - MIB) != "EIO" for _ in range(REPEATS)):
        sys.exit("FAILED: the spot was read")
    leave(client, other)
    server.check(1, f"READ of {length} bytes at {begin} failed: (Input/output error|No data available)")


def tables(disk):
    sectors = int(subprocess.run(["blockdev", "--getsz", disk], stdout=subprocess.PIPE, check=True).stdout)
    return f"0 {sectors} flakey {disk} 0 3600 0", f"0 {sectors} flakey {disk} 0 0 3600 1 error_writes"


def failed_sync(name, disk):
    works, fails = tables(disk)
    server = Watched()
    client, *others = (connect() for _ in range(4))
    for each in (client, *others):
        each.pwrite(pattern(64 * KIB, 1), 0)
    expect("a flush", answer(client.flush), "ok")
    client.pwrite(pattern(64 * KIB, 2), 0)
    replace_table(name, fails)
    expect("a write while the disk fails", answer(client.pwrite, pattern(4 * KIB, 3), MIB), "EIO")
    expect("a read while the disk fails", answer(client.pread, 64 * KIB, 0), "ok")
    expect("a flush while the disk fails", answer(client.flush), "EIO")
    replace_table(name, works)
    told_once(client, others)
    leave(client, *others)
    server.check(4, "FLUSH of 0 bytes at 0 failed: Input/output error")


def failed_journal(name, disk):
    works, fails = tables(disk)
    server = Watched()
    client, other = connect(), connect()
    client.pwrite(pattern(64 * KIB, 1), 0, FUA)
    # It took a new block, which the journal has to tell of.
    client.pwrite(pattern(4 * KIB, 2), MIB)
    replace_table(name, fails)
    expect("a flush while the disk fails", answer(client.flush), "EIO")
    replace_table(name, works)
    expect("another client's flush", answer(other.flush), REFUSALS)
    for _ in range(REPEATS):
        said = answer(client.pwrite, pattern(MIB, 3), 2 * MIB, FUA)
        if said not in REFUSALS:
            sys.exit(f"FAILED: of a file system that gave up, a durable write is answered {said}")
    print(f"ok: {REPEATS} durable writes are refused")
    expect("a read", answer(client.pread, 64 * KIB, 0), {"ok", "EIO"})
    leave(client, other)
    server.check(2, "failed: (Input/output error|Read-only file system)")


def vanish(path):
    server = Watched()
    clients = [connect() for _ in range(4)]
    offsets = range(0, 8 * MIB, 64 * KIB)
    memory = nbd.Buffer.from_bytearray(bytearray(pattern(64 * KIB, 1)))
    for client in clients:
        for offset in offsets:
            client.aio_pwrite(memory, offset, completion=lambda _: 1)
    Path(path).write_text("1\n")
    deadline = time.monotonic() + PATIENCE_S
    for client in clients:
        while client.aio_in_flight():
            client.poll(1000)
            if time.monotonic() > deadline:
                sys.exit(f"FAILED: {client.aio_in_flight()} requests were not answered")
    print(f"ok: {len(clients) * len(offsets)} requests that were under way are answered")
    for number, client in enumerate(clients):
        expect(f"a read of client {number}", answer(client.pread, 4 * KIB, 0), "EIO")
        expect("a write", answer(client.pwrite, pattern(4 * KIB, 1), 0), "EIO")
        expect("a durable write", answer(client.pwrite, pattern(4 * KIB, 1), 0, FUA), "EIO")
        expect("a flush", answer(client.flush), "EIO")
        expect("zeroes", answer(client.zero, 64 * KIB, 0), "EIO")
    if any(answer(clients[0].pread, MIB, 0) != "EIO" for _ in range(REPEATS)):
        sys.exit("FAILED: the disk was read")
    expect("the size that a client is told who comes now", str(connect().get_size() > 0), "True")
    leave(*clients)
    server.check(4, "failed: (Input/output error|No such device)")


def no_room(*make_room):
    server = Watched()
    client, other = connect(), connect()
    chunks = range(0, client.get_size(), MIB)
    said = [answer(client.pwrite, pattern(MIB, 1), offset) for offset in chunks]
    fitting = said.count("ok")
    if not 1 <= fitting < len(said) or said != ["ok"] * fitting + ["ENOSPC"] * (len(said) - fitting):
        sys.exit(f"FAILED: writes of a MiB each are answered {said}")
    print(f"ok: {fitting} MiB have room, the next {len(said) - fitting} are answered ENOSPC")
    full = chunks[-1]
    expect("a write where there is room", answer(client.pwrite, pattern(MIB, 2), 0, FUA), "ok")
    expect("a read of what was refused", answer(client.pread, MIB, full), "ok")
    expect("zeroes that need room", answer(client.zero, MIB, full, NO_HOLE), "ENOSPC")
    expect("a durable write that needs room", answer(client.pwrite, pattern(MIB, 3), full, FUA), "ENOSPC")
    for each in (client, other):  # Nothing that was written is in doubt.
        expect("a flush", answer(each.flush), "ok")
    if any(answer(client.pwrite, pattern(MIB, 3), full) != "ENOSPC" for _ in range(REPEATS)):
        sys.exit("FAILED: there was room after all")
    expect("a trim", answer(client.trim, MIB, 0, FUA), "ok")
    expect("a write to the room that the trim made", answer(client.pwrite, pattern(512 * KIB, 4), full), "ok")
    subprocess.run(make_room, check=True)
    expect("a durable write once there is room", answer(client.pwrite, pattern(MIB, 5), full, FUA), "ok")
    expect("a flush", answer(other.flush), "ok")
    if client.pread(MIB, full) != pattern(MIB, 5) or other.pread(MIB, MIB) != pattern(MIB, 1):
        sys.exit("FAILED: the disk does not hold what was written")
    leave(client, other)
    server.check(1, "failed: (No space left on device|Disk quota exceeded)")


if __name__ == "__main__":
    {"bad-spot": bad_spot, "unreadable-spot": unreadable_spot, "failed-sync": failed_sync,
     "failed-journal": failed_journal, "vanish": vanish, "no-room": no_room}[sys.argv[1]](*sys.argv[2:])
