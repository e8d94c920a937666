#!/usr/bin/python3
"""A file that fails when it is told to: a FUSE file system that is one file, over a file that does not fail.

It is a process of its own, so the errors come out of the kernel as those of a disk would, by direct and asynchronous I/O,
and nothing is changed in the server. Each failure is counted before it is answered. Who alone uses a region of the file,
one request at a time, can tell by the count whether a request had to fail.
"""
import ctypes
import errno
import mmap
import os
import random
import struct
import subprocess
import sys
import threading

MIB = 1 << 20
TRANSFER_MAX = MIB
THREADS = 4
END_PATIENCE_S = 20

# <linux/fuse.h>
FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, INIT = 2, 3, 4, 14, 15, 16, 17, 18, 20, 26
INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE, LSEEK = 36, 38, 42, 43, 46
NO_REPLY = (FORGET, INTERRUPT, BATCH_FORGET)
ASYNC_READ, BIG_WRITES, ASYNC_DIO, MAX_PAGES = 1 << 0, 1 << 5, 1 << 15, 1 << 22
IN_HEADER, OUT_HEADER = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
TRANSFER = struct.Struct("<QQIIQII")  # fh, offset, size, its flags, lock owner, flags of the file, -
MS_NOSUID, MS_NODEV = 2, 4


class Controls:
    """What shall fail, and what has: a file in memory that both processes see. Each number has one writer."""

    SYNCS_WANTED, SYNCS, DURABLE = 0, 1, 2   # cumulative: syncs that shall fail, that did, and durable writes that did
    REGION_BEGIN, REGION_FIELDS = 8, 3       # of each region: how many of 1000 shall fail, how many did, durable ones

    def __init__(self, path, regions):
        self.path, self.regions = path, regions
        size = 8 * (self.REGION_BEGIN + regions * self.REGION_FIELDS)
        with open(path, "a+b") as opened:
            opened.truncate(size)
            self._numbers = memoryview(mmap.mmap(opened.fileno(), size)).cast("Q")
        self._counting = threading.Lock()

    def _place(self, region, field):
        return self.REGION_BEGIN + region * self.REGION_FIELDS + field

    # For the tests.

    def fail(self, regions, per_mille):
        """From now on, so many of a thousand reads, writes and zeroings there."""
        for region in regions:
            self._numbers[self._place(region, 0)] = per_mille

    def fail_syncs(self, count):
        """The next ones, of whichever client."""
        self._numbers[self.SYNCS_WANTED] = self._numbers[self.SYNCS] + count

    def stop(self):
        self.fail(range(self.regions), 0)
        self._numbers[self.SYNCS_WANTED] = self._numbers[self.SYNCS]

    def failed(self, region):
        return self._numbers[self._place(region, 1)]

    def failed_durable(self, region):
        """Of these, the durable writes."""
        return self._numbers[self._place(region, 2)]

    def failed_everywhere(self):
        return sum(self.failed(region) for region in range(self.regions))

    def failed_syncs(self):
        return self._numbers[self.SYNCS]

    def failed_durable_everywhere(self):
        return self._numbers[self.DURABLE]

    # For the file system.

    def must_fail(self, region, chance, durable=False):
        if region >= self.regions or chance.randrange(1000) >= self._numbers[self._place(region, 0)]:
            return False
        with self._counting:
            self._numbers[self._place(region, 1)] += 1
            if durable:
                self._numbers[self._place(region, 2)] += 1
                self._numbers[self.DURABLE] += 1
        return True

    def sync_must_fail(self):
        with self._counting:
            if self._numbers[self.SYNCS] >= self._numbers[self.SYNCS_WANTED]:
                return False
            self._numbers[self.SYNCS] += 1
        return True


class FileSystem:
    """Its root is the file."""

    def __init__(self, backing, place, controls, region_size):
        self._file = os.open(backing, os.O_RDWR | os.O_CLOEXEC)
        self._direct = os.open(backing, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
        self._controls, self._region_size = controls, region_size
        self._chance = random.Random(1)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=100600,user_id={os.getuid()},group_id={os.getgid()},max_read={TRANSFER_MAX}"
        if self._libc.mount(b"failing", os.fsencode(place), b"fuse", MS_NOSUID | MS_NODEV, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount")
        self._answers = {INIT: self._init, GETATTR: self._attributes, SETATTR: self._attributes, OPEN: self._open,
                         READ: self._read, WRITE: self._write, STATFS: self._statfs, RELEASE: self._nothing,
                         FSYNC: self._sync, FALLOCATE: self._allocate, LSEEK: self._seek, DESTROY: self._nothing}

    def run(self):
        threads = [threading.Thread(target=self._serve) for _ in range(THREADS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def _serve(self):
        """Until it is unmounted."""
        # What is to be written comes to lie where direct I/O wants it.
        head, data = bytearray(IN_HEADER.size + TRANSFER.size), memoryview(mmap.mmap(-1, TRANSFER_MAX + 4096))
        while True:
            try:
                os.readv(self._device, [head, data])
            except OSError as failure:
                if failure.errno == errno.ENODEV:
                    return
                continue  # It was taken back before it was read.
            _, what, number, *_ = IN_HEADER.unpack_from(head)
            if what in NO_REPLY:
                continue
            status, said = 0, b""
            try:
                answer = self._answers.get(what)
                if answer is None:
                    raise OSError(errno.ENOSYS, "unknown")
                said = answer(head[IN_HEADER.size:], data)
            except OSError as failure:
                status = -failure.errno
            try:
                os.writev(self._device, [OUT_HEADER.pack(OUT_HEADER.size + len(said), status, number), said])
            except OSError as failure:
                if failure.errno not in (errno.ENOENT, errno.ENODEV):
                    raise

    # What is asked once

    def _init(self, asked, _):
        major, minor, readahead, flags = struct.unpack_from("<IIII", asked)
        flags &= ASYNC_READ | BIG_WRITES | ASYNC_DIO | MAX_PAGES
        return struct.pack("<IIIIHHIIHHI28x", major, min(minor, 31), readahead, flags, 64, 48, TRANSFER_MAX, 1,
                           TRANSFER_MAX // 4096, 0, 0)

    def _open(self, *_):
        return bytes(16)

    def _nothing(self, *_):
        return b""

    def _attributes(self, *_):
        facts = os.fstat(self._file)
        return struct.pack("<QII", 1, 0, 0) + struct.pack("<QQQQQQIIIIIIIIII", 1, facts.st_size, facts.st_blocks, 0, 0, 0, 0, 0, 0,
                                                           facts.st_mode, 1, facts.st_uid, facts.st_gid, 0, 4096, 0)

    def _statfs(self, *_):
        facts = os.fstatvfs(self._file)
        return struct.pack("<QQQQQIIII24x", facts.f_blocks, facts.f_bfree, facts.f_bavail, 1, 0, facts.f_bsize, 255, facts.f_frsize, 0)

    # What can fail

    def _must_fail(self, offset, durable=False):
        return self._controls.must_fail(offset // self._region_size, self._chance, durable)

    @staticmethod
    def _fail():
        raise OSError(errno.EIO, "as it was told")

    def _way(self, offset, size):
        return self._direct if (offset | size) % 4096 == 0 else self._file

    def _read(self, asked, data):
        _, offset, size, *_ = TRANSFER.unpack_from(asked)
        if self._must_fail(offset):
            self._fail()
        return data[:os.preadv(self._way(offset, size), [data[:size]], offset)]

    def _write(self, asked, data):
        _, offset, size, _, _, flags, _ = TRANSFER.unpack_from(asked)
        data = data[:size]
        durable = flags & os.O_DSYNC != 0
        if self._must_fail(offset, durable):
            # Whether nothing of it is on the disk, or some, or all. Of whole blocks, whole blocks: where direct and buffered
            # writes meet, Linux may make an I/O error of it, which nobody has counted.
            part, way = size * self._chance.randrange(3) // 2, self._way(offset, size)
            if way == self._direct:
                part -= part % 4096
            os.pwrite(way, data[:part], offset)
            self._fail()
        written = 0
        # Of an asynchronous write that is short the kernel makes an I/O error, and not want of room.
        while written < size:
            rest = data[written:]
            written += os.pwritev(self._way(offset + written, len(rest)), [rest], offset + written, os.RWF_DSYNC if durable else 0)
        return struct.pack("<II", size, 0)

    def _sync(self, *_):
        if self._controls.sync_must_fail():
            self._fail()
        os.fdatasync(self._file)
        return b""

    def _allocate(self, asked, _):
        _, offset, length, mode = struct.unpack_from("<QQQI", asked)
        fails = self._must_fail(offset)
        if not fails or self._chance.randrange(2) == 0:
            number = self._libc.fallocate(self._file, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
            if number != 0 and not fails:
                raise OSError(ctypes.get_errno(), "fallocate")
        if fails:
            self._fail()
        return b""

    def _seek(self, asked, _):
        _, offset, whence = struct.unpack_from("<QQI", asked)
        # The file's position is everybody's; the answer is of this call alone.
        return struct.pack("<Q", os.lseek(self._file, offset, whence))


class FailingFile:
    """While its `with` block lasts there is, at `path`, what is in the file `backing`. `why_not` if there cannot be one."""

    def __init__(self, backing, folder, controls, region_size):
        self.path = folder / "failing"
        self._arguments = [backing, self.path, controls.path, controls.regions, region_size]
        self.why_not = None

    def __enter__(self):
        self.path.touch()
        self._process = subprocess.Popen([sys.executable, "-B", __file__, *map(str, self._arguments)], text=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = self._process.stdout.readline().strip()
        if said != "ready":
            self.why_not = said or "it ended"
        return self

    def is_alive(self):
        return self._process.poll() is None

    def __exit__(self, *_):
        if self.why_not is None:
            subprocess.run(["umount", "--lazy", self.path], check=False)
        try:
            self._process.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def main():
    backing, place, controls, regions, region_size = sys.argv[1:]
    try:
        files = FileSystem(backing, place, Controls(controls, int(regions)), int(region_size))
    except OSError as failure:
        sys.exit(f"no FUSE here: {failure}")
    print("ready", flush=True)
    files.run()


if __name__ == "__main__":
    main()
