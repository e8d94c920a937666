"""What lies behind the servers: the file, and what is made beside it when a workload asks for it."""
import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mounts
import verification

KIB, MIB = 1 << 10, 1 << 20
SHM = Path("/dev/shm")
ZRAM_CONTROL = Path("/sys/class/zram-control")
DATA_PERIOD = 16  # A sparse image has one block of data, 1 MiB, in sixteen.


class NotAvailable(Exception):
    """This machine lacks what the workload needs."""


class ServerLacks(NotAvailable):
    """The server itself lacks it, on whatever machine: no excuse for our own in a smoke test."""


@dataclasses.dataclass(frozen=True)
class Backing:
    path: str
    size: int
    is_null: bool = False
    on_disk: bool = True
    source: str = ""  # of a copy into it
    hole_begin: int = 0  # From here to the end it has no blocks when a measurement begins; 0: it has them all.
    reads_as_zeroes: bool = False  # All of it.
    about: str = ""


def free_memory():
    """Bytes that can be had without swapping: what is free, and the page cache that can be given up for it."""
    found = re.search(r"(?m)^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    return int(found.group(1)) * KIB if found else 0


def fill(path, size, period=1):
    """Random bytes, of which file systems and servers can save none; every period-th MiB of them."""
    block = os.urandom(MIB)
    with open(path, "wb") as opened:
        opened.truncate(size)
        for offset in range(0, size, MIB * period):
            opened.seek(offset)
            # Each block is another one, or a store could share them.
            opened.write(offset.to_bytes(8, "big") + block[8:min(MIB, size - offset)])
        opened.flush()
        os.fsync(opened.fileno())


def evict(backing):
    """Writes back what is dirty and takes the file out of the page cache, so that all begin alike."""
    for path in filter(None, (backing.path, backing.source)):
        if str(path).startswith(str(SHM)):
            continue
        if Path(path).is_block_device():
            subprocess.run(["blockdev", "--flushbufs", path], check=False)
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def drop_all_caches():
    if os.geteuid() == 0:
        os.sync()
        with contextlib.suppress(OSError):
            Path("/proc/sys/vm/drop_caches").write_text("3")


def take_away(action, *words, **more):
    """What cannot be taken away, or not in time, is told: no reason to lose what was measured."""
    try:
        action(*words, **more)
    except (OSError, mounts.CannotMount, subprocess.SubprocessError, KeyboardInterrupt) as why:
        print(f"left behind: {str(why) or 'interrupted'}", file=sys.stderr)


class _Undo(contextlib.ExitStack):
    def callback(self, action, /, *words, **more):
        return super().callback(take_away, action, *words, **more)


class Backings:
    """Makes what workloads ask for, keeps it until the end, and then takes everything away but the file."""

    def __init__(self, file, size, folders=None, verify=False):
        """`folders`: of file systems that are there already, by their kind. `verify`: what is read will be compared;
        see verification.py."""
        self._file, self._size = Path(file).resolve(), size  # Daemons leave the current directory.
        self._folders = {kind: Path(folder).resolve() for kind, folder in (folders or {}).items() if folder}
        self._verify = verify
        self._mounted = {}  # kind -> folder
        self._made = {}
        self._undo = _Undo()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._undo.close()

    def about(self):
        """{kind: what is special about it}."""
        return {kind: made.about for kind, made in self._made.items() if getattr(made, "about", "")}

    def get(self, kind):
        """Raises NotAvailable, for ever the same."""
        if kind not in self._made:
            try:
                self._made[kind] = getattr(self, "_make_" + kind.replace("-", "_"))()
            except (NotAvailable, mounts.CannotMount, OSError, subprocess.CalledProcessError) as lacking:
                self._made[kind] = NotAvailable(str(lacking))
        if isinstance(self._made[kind], NotAvailable):
            raise self._made[kind]
        return self._made[kind]

    def _make_file(self):
        """Written in full even where it is there: blocks that were only set aside read as zeroes, without the disk."""
        fill(self._file, self._size)
        self._stamp(self._file, self._size)
        return Backing(str(self._file), self._size)

    def _stamp(self, path, size):
        if self._verify:
            verification.stamp(path, size)

    def _beside(self, suffix):
        path = Path(f"{self._file}.{suffix}")
        self._undo.callback(path.unlink, missing_ok=True)
        return path

    def _in_memory(self, suffix, size):
        if free_memory() < 2 * size:
            raise NotAvailable("not enough free memory")
        if not SHM.is_dir() or shutil.disk_usage(SHM).free < size:
            raise NotAvailable(f"no room in {SHM}")
        path = SHM / f"aionbd-compare-{os.getpid()}.{suffix}"
        self._undo.callback(path.unlink, missing_ok=True)
        return path

    def _make_tmpfs(self):
        size = min(self._size, 1024 * MIB)
        path = self._in_memory("tmpfs", size)
        path.touch()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
        except OSError:  # before Linux 6.6
            raise NotAvailable("tmpfs takes no direct I/O here") from None
        fill(path, size)
        self._stamp(path, size)
        return Backing(str(path), size, on_disk=False)

    def _make_null(self):
        """For those without a null store of their own, a null block device; failing that, a zram device on which
        nothing was ever written, whose reads are zeroes that the kernel makes; failing that, nothing."""
        device = Path("/dev/nullb0")  # What it reads as, nobody promises.
        if device.is_block_device() and os.access(device, os.W_OK) and not self._verify:
            size = int(Path("/sys/block/nullb0/size").read_text()) * 512
            return Backing(str(device), size, is_null=True, on_disk=False, about="null_blk")
        if not ZRAM_CONTROL.is_dir() or os.geteuid() != 0:
            return Backing("", 1024 * MIB, is_null=True, on_disk=False, reads_as_zeroes=True)
        number = (ZRAM_CONTROL / "hot_add").read_text().strip()
        self._undo.callback((ZRAM_CONTROL / "hot_remove").write_text, number)
        (Path("/sys/block") / f"zram{number}" / "disksize").write_text(str(1024 * MIB))
        return Backing(f"/dev/zram{number}", 1024 * MIB, is_null=True, on_disk=False, reads_as_zeroes=True,
                       about="zram, never written, in place of null_blk")

    def _make_loop4096(self):
        if os.geteuid() != 0:
            raise NotAvailable("a loop device with sectors of 4096 bytes needs root")
        main = self.get("file")
        done = subprocess.run(["losetup", "--find", "--show", "--sector-size", "4096", "--direct-io=on", main.path],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise NotAvailable(f"no loop device with sectors of 4096 bytes: {done.stderr.strip()}")
        device = done.stdout.strip()
        self._undo.callback(subprocess.run, ["losetup", "--detach", device], check=False)
        return Backing(device, main.size, about="loop device, sectors of 4096 bytes")

    def _make_beside_holes(self):
        path = self._beside("beside-holes")
        fill(path, self._size - MIB)
        self._stamp(path, self._size - MIB)
        os.truncate(path, self._size)
        return Backing(str(path), self._size)

    # The same on file systems of several kinds.

    def _folder_on(self, kind):
        """Of the size of the file, or what the kind needs at least."""
        if kind in self._mounted:
            return self._mounted[kind]
        folder = self._folders.get(kind)
        if folder is None:
            mounts.check(kind)
            image = self._beside(f"{kind}.img")
            fill(image, max(self._size, mounts.IMAGE_MIN))
            folder = mounts.mount(kind, image, self._undo)
        elif mounts.kind_of(folder) != kind:
            raise NotAvailable(f"{folder} is on {mounts.kind_of(folder)} and not on {kind}")
        self._mounted[kind] = folder
        return self._mounted[kind]

    def _file_on(self, kind, name, begin_of_hole, size):
        path = self._folder_on(kind) / f"aionbd-compare-{name}"
        self._undo.callback(path.unlink, missing_ok=True)
        fill(path, begin_of_hole or size)
        self._stamp(path, begin_of_hole or size)
        os.truncate(path, size)
        where = "where it was asked for" if kind in self._folders else "on a loop device with direct I/O"
        return Backing(str(path), size, hole_begin=begin_of_hole, about=f"{kind}, {where}")

    def _dense_on(self, kind):
        return self._file_on(kind, "dense", 0, self._size // 4)

    def _holes_on(self, kind):
        quarter = max(MIB, self._size // 4 // MIB * MIB)
        return self._file_on(kind, "holes", quarter, 2 * quarter)

    def _make_ext4_dense(self):
        return self._dense_on("ext4")

    def _make_ext4_holes(self):
        return self._holes_on("ext4")

    def _make_xfs_dense(self):
        return self._dense_on("xfs")

    def _make_xfs_holes(self):
        return self._holes_on("xfs")

    # For nbdcopy. What is read comes from memory where there is room, so that the disk has one thing to do.

    def _with_source(self, backing, suffix, period):
        about = ""
        try:
            path = self._in_memory(suffix, self._size // period)
        except NotAvailable as why:
            path, about = self._beside(suffix), f"copied from the same disk, for there is {why}"
        fill(path, self._size, period)
        if period == 1:
            self._stamp(path, self._size)
        return dataclasses.replace(backing, source=str(path), about=about)

    def _make_dense_in(self):
        return self._with_source(self.get("file"), "dense", 1)

    def _make_sparse_in(self):
        return self._with_source(Backing(str(self._beside("sparse")), self._size), "holes", DATA_PERIOD)

    def _make_dense_out(self):
        return self.get("file")

    def _make_sparse_out(self):
        path = self._beside("sparse-source")
        fill(path, self._size, DATA_PERIOD)
        return Backing(str(path), self._size)


def prepare(backing, workload):
    """What each single measurement starts from."""
    if workload.backing == "sparse-in":
        with open(backing.path, "wb") as opened:
            opened.truncate(backing.size)
    if backing.hole_begin:
        os.truncate(backing.path, backing.hole_begin)
        os.truncate(backing.path, backing.size)
    evict(backing)
