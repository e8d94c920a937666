"""The image, on a small file system of its own where root can make one: that can be filled up."""
import collections
import contextlib
import os
import subprocess
import threading

import failing_file
import provoked

MIB = 1 << 20
SLOT_SIZE, SLOTS = 4 * MIB, 12      # each is one client's at a time, and what it must contain is known
SCRATCH_OFFSET = SLOT_SIZE * SLOTS  # what lies behind is anybody's, and not verified
FIO_OFFSET, FIO_SIZE = SCRATCH_OFFSET, 16 * MIB
BAD_OFFSET, BAD_SIZE = FIO_OFFSET + FIO_SIZE, 16 * MIB
PROBE_OFFSET, PROBE_SIZE = BAD_OFFSET + BAD_SIZE, MIB  # written once; reads of it are timed
IMAGE_SIZE = PROBE_OFFSET + PROBE_SIZE + 1000  # an odd size: the last bytes are reached in another way
FILE_SYSTEM_SIZE = 256 * MIB


class Slot:
    def __init__(self, number):
        self.number = number
        self.offset = number * SLOT_SIZE
        self.content = bytearray(SLOT_SIZE)
        self.unknown = []      # (begin, end) of changes that failed: both states are possible, to be written again
        self.interrupted = []  # (begin, end, content) of the change that a killed server had in hand
        self.taken = threading.Lock()


class Disk:
    def __init__(self, folder, memory):
        """`memory`: a folder for what two processes share."""
        self._folder = folder
        self._undo = contextlib.ExitStack()
        self.slots = [Slot(number) for number in range(SLOTS)]
        self.can_be_filled = os.geteuid() == 0
        self.is_full = threading.Event()   # writes may fail for want of room
        self.is_killed = threading.Event()  # so is the server, and connections end
        self.is_served_failing = False     # by way of `failing`
        self.tools = threading.Lock()      # whoever cannot know of faults holds this
        self.controls = failing_file.Controls(memory / "controls", SLOTS)
        self.ledger = provoked.Ledger(self.controls)
        self.told = collections.Counter()  # errors that were provoked and reached their clients, by cause
        self._counting = threading.Lock()

    def __enter__(self):
        place = self._mount() if self.can_be_filled else self._folder
        self.path = place / "image"
        self._filler = place / "filler"
        with open(self.path, "wb") as opened:
            opened.truncate(IMAGE_SIZE)
            opened.seek(PROBE_OFFSET)
            opened.write(os.urandom(PROBE_SIZE))
        self.failing = failing_file.FailingFile(self.path, self._folder, self.controls, SLOT_SIZE)
        self._undo.enter_context(self.failing)
        return self

    @property
    def served_path(self):
        return self.failing.path if self.is_served_failing else self.path

    def count_told(self, cause):
        with self._counting:
            self.told[cause] += 1

    def _mount(self):
        container, place = self._folder / "file-system", self._folder / "mounted"
        place.mkdir()
        with open(container, "wb") as opened:
            opened.truncate(FILE_SYSTEM_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", container], check=True)
        done = subprocess.run(["mount", "-o", "loop", container, place], check=False)
        if done.returncode != 0:
            self.can_be_filled = False
            return self._folder
        self._undo.callback(subprocess.run, ["umount", "--lazy", place], check=False)
        return place

    def fill_up(self):
        """Leaves no room for anything that is not allocated yet."""
        self.is_full.set()
        with open(self._filler, "wb") as opened:
            size = FILE_SYSTEM_SIZE
            while size >= 4096:
                try:
                    os.posix_fallocate(opened.fileno(), os.fstat(opened.fileno()).st_size, size)
                except OSError:
                    size //= 2

    def make_room(self):
        self._filler.unlink(missing_ok=True)

    def __exit__(self, *_):
        self._undo.close()
