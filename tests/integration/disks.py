"""File systems and disks of a test's own, for tests of what files and disks can do to a server."""
import contextlib
import subprocess

import served
from served import MIB


class DiskFacts(served.Facts):
    """Facts that mount and attach, which takes root; what they made goes with them."""

    def mounted(self, size, make=("mkfs.ext4", "-q", "-m", "0")):
        """A small file system."""
        self.need_root()
        folder = self.folder / "mounted"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
        if make:
            self.run_tool(*make, self.sparse(size, "file-system"))
            command = ["mount", "-o", "loop", self.folder / "file-system", folder]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"cannot mount here: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", folder], check=True)
        return folder

    def loop_device(self, backing):
        """A disk whose content is in this file."""
        self.need_root()
        self.need("losetup")
        done = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", backing],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"no loop devices here: {done.stderr.strip()}")
        device = done.stdout.strip()
        # Unless the test itself does so.
        self.addCleanup(subprocess.run, ["losetup", "--detach", device], stderr=subprocess.DEVNULL, check=False)
        return device


class DiskThatStands:
    """A disk of a MiB whose writes stand still at will: the file system of its file is frozen meanwhile."""

    def __init__(self, case):
        case.need("fsfreeze")
        self._folder = case.mounted(16 * MIB)
        backing = self._folder / "disk"
        backing.write_bytes(bytes(MIB))
        self.path = case.loop_device(backing)

    @contextlib.contextmanager
    def standing(self):
        """A server that has writes there cannot be killed before this ends."""
        subprocess.run(["fsfreeze", "--freeze", self._folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", self._folder], check=True)
