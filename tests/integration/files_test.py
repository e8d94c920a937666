#!/usr/bin/python3
"""Every kind of file and disk that can be served: random requests of any size, and nothing but them in the file."""
import concurrent.futures
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import served
from model import Model
from raw_client import EIO, FLUSH, FUA, READ, WRITE_ZEROES, RawClient, write
from served import KIB, MIB

ODD = 10 * MIB + 333


class Files(served.Facts):
    def _check(self, path, *options, steps=150, unit=None, log=None):
        """Serves the file, changes it at random, and compares what is served and what is left behind."""
        before = self._content(path)
        model = Model(before)
        with self.serve(path, *options) as server:
            handle = server.connect()
            self.assertEqual(handle.get_size(), len(before))
            for _ in range(steps):
                model.step(handle)
            model.compare_all(handle)
            handle.shutdown()
            if unit:
                server.wait_for_log(f"direct I/O in units of {unit}\n")
            if log:
                server.wait_for_log(log)
        self.assert_same_bytes(self._content(path), model.content)

    @staticmethod
    def _content(path):
        # A loop device has a page cache of its own, which the server's direct I/O goes past.
        with open(path, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return opened.read()

    def _loop_device(self, size, sector, sparse=False):
        self.need_root()
        self.need("losetup")
        path = self.sparse(size, "backing.img") if sparse else self.image(size, "backing.img")
        done = subprocess.run(["losetup", "--find", "--show", "--sector-size", str(sector), path],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"no loop devices here: {done.stderr.strip()}")
        device = done.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", device], check=True)
        return device

    def _mounted(self, device, make):
        folder = self.folder / "mounted"
        folder.mkdir()
        self.run_tool(*make, device)
        done = subprocess.run(["mount", device, folder], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"cannot mount here: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", folder], check=True)
        return folder

    # Regular files

    def an_allocated_file(self):
        self._check(self.image(8 * MIB))

    def a_sparse_file(self):
        self._check(self.sparse(8 * MIB))

    def an_odd_sized_file(self):
        self._check(self.image(ODD))

    def an_odd_sized_sparse_file(self):
        self._check(self.sparse(ODD))

    def a_file_of_1_byte(self):
        self._check(self.image(1), steps=60)

    def a_file_of_511_bytes(self):
        self._check(self.image(511))

    def a_file_of_513_bytes(self):
        self._check(self.image(513))

    def a_file_of_4095_bytes(self):
        self._check(self.image(4095))

    def a_file_of_4097_bytes(self):
        self._check(self.image(4097))

    def a_file_of_whole_sectors_but_half_a_page(self):
        self._check(self.image(MIB + 512))

    def a_file_that_was_created_and_preallocated(self):
        path = self.folder / "new.img"
        with self.serve(path, "--create", "5M", "--preallocate") as server:
            server.wait_for_log("created and serving")
        self.assertEqual(path.stat().st_size, 5 * MIB)
        self.assertGreaterEqual(path.stat().st_blocks * 512, 5 * MIB)
        self._check(path)

    def a_file_by_way_of_a_symbolic_link(self):
        image = self.image(MIB)
        link = self.folder / "link"
        link.symlink_to(image)
        self._check(link, steps=30)

    def a_file_with_blanks_and_umlauts_in_its_name(self):
        self._check(self.image(MIB, "meine größte Platte.img"), steps=30)

    def a_read_only_file_is_served_unchanged(self):
        image = self.image(ODD)
        content = image.read_bytes()
        os.chmod(image, 0o400)
        before = image.stat()
        model = Model(content)
        with self.serve(image, "--read-only") as server:
            handle = server.connect()
            for _ in range(100):
                model.compare(handle, *model.any_range())
            model.compare_all(handle)
            handle.shutdown()
        self.assert_same_bytes(image.read_bytes(), content)
        self.assertEqual(image.stat().st_mtime_ns, before.st_mtime_ns)

    def buffered_io_serves_the_same_bytes_and_says_so(self):
        self._check(self.image(ODD), "--io", "buffered", log="BUFFERED: through the page cache")

    def a_file_on_tmpfs_is_served_or_refused_with_advice(self):
        if not os.path.isdir("/dev/shm"):
            self.skipTest("no tmpfs here")
        folder = tempfile.mkdtemp(dir="/dev/shm")
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder, "disk.img")
        path.write_bytes(os.urandom(MIB + 1))
        try:
            os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
        except OSError:
            refused = self.run_tool(served.program, "--unix", self.free_socket(), path, status=1)
            self.assertRegex(refused, r"tmpfs.*refuses direct I/O.*--io buffered")
            self._check(path, "--io", "buffered")
            return
        self._check(path)

    def zeroes_behind_the_end_of_a_file_that_was_cut_off_are_an_error(self):
        image = self.image(MIB)
        with self.serve(image) as server, RawClient.in_transmission(server) as client:
            os.truncate(image, MIB // 2)
            for flags in (0, FUA):
                self.assertEqual(client.ask(WRITE_ZEROES, flags=flags, offset=768 * KIB, length=64 * KIB)[1], EIO)
            self.assertEqual(client.ask(READ, offset=768 * KIB, length=1)[1], EIO)
            self.assertEqual(client.ask(WRITE_ZEROES, offset=256 * KIB, length=64 * KIB)[1], 0)
            self.assertEqual(client.ask(READ, 64 * KIB, offset=256 * KIB, length=64 * KIB)[2], bytes(64 * KIB))

    @served.need("loop_devices")
    def a_file_that_ends_inside_a_large_block_is_not_in_two_worlds_there(self):
        """A block of the file system is in the page cache as a whole, or not at all."""
        self.need_root()
        folder, block = self.folder / "mounted", 16 * KIB
        folder.mkdir()
        self.run_tool("mkfs.xfs", "-q", "-b", f"size={block}", self.sparse(512 * MIB, "file-system"))
        done = subprocess.run(["mount", "-o", "loop", self.folder / "file-system", folder], stderr=subprocess.PIPE, text=True,
                              check=False)
        if done.returncode != 0:
            self.skipTest(f"the kernel has no such large blocks: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", folder], check=True)
        path, end = folder / "disk.img", MIB + block // 2
        path.write_bytes(os.urandom(end + 100))
        with self.serve(path, "--threads", 2) as server:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                work = [pool.submit(self._write_and_flush, server, offset, length)
                        for offset, length in ((end - 4096, 4096), (end - 8192, 4096), (end, 20), (end + 40, 20))]
                self.assertEqual([each.result() for each in work], [set()] * len(work))

    @staticmethod
    def _write_and_flush(server, offset, length):
        """The errors of many."""
        errors = set()
        with RawClient.in_transmission(server) as client:
            for at in range(1500):
                client.send(write(bytes([at & 255]) * length, offset=offset))
                errors.add(client.reply()[1])
                if at % 4 == 0:
                    errors.add(client.ask(FLUSH)[1])
        return errors - {0}

    # Disks

    @served.need("loop_devices")
    def a_disk_with_sectors_of_512(self):
        self._check(self._loop_device(8 * MIB, 512), unit=512)

    @served.need("loop_devices")
    def a_disk_with_sectors_of_4096(self):
        self._check(self._loop_device(8 * MIB, 4096), unit=4096)

    @served.need("loop_devices")
    def a_read_only_disk(self):
        device = self._loop_device(MIB, 512)
        content = self._content(device)
        with self.serve(device, "--read-only") as server:
            handle = server.connect()
            self.assertTrue(handle.is_read_only())
            self.assert_same_bytes(handle.pread(MIB, 0), content)

    @served.need("loop_devices")
    def a_mounted_disk_is_refused(self):
        device = self._loop_device(16 * MIB, 512)
        self._mounted(device, ["mkfs.ext4", "-q"])
        refused = self.run_tool(served.program, "--unix", self.free_socket(), device, status=1)
        self.assertIn("in use by the system (mounted", refused)

    @served.need("loop_devices")
    def an_odd_file_on_ext4_with_sectors_of_4096(self):
        folder = self._mounted(self._loop_device(32 * MIB, 4096), ["mkfs.ext4", "-q"])
        path = folder / "disk.img"
        path.write_bytes(os.urandom(5 * MIB + 333))
        self._check(path, unit=4096)

    @served.need("loop_devices")
    def an_odd_file_on_ext4_with_blocks_of_1024(self):
        folder = self._mounted(self._loop_device(32 * MIB, 512), ["mkfs.ext4", "-q", "-b", "1024"])
        path = folder / "disk.img"
        path.write_bytes(os.urandom(5 * MIB + 333))
        self._check(path, unit=512)

    @served.need("loop_devices")
    def an_odd_file_on_xfs_with_sectors_of_4096(self):
        self.need("mkfs.xfs")
        folder = self._mounted(self._loop_device(320 * MIB, 4096, sparse=True), ["mkfs.xfs", "-q", "-K"])
        path = folder / "disk.img"
        path.write_bytes(os.urandom(5 * MIB + 333))
        self._check(path, unit=4096)

    @served.need("loop_devices")
    def a_full_file_system_is_enospc_and_the_rest_stays_good(self):
        folder = self._mounted(self._loop_device(16 * MIB, 512), ["mkfs.ext4", "-q", "-m", "0"])
        path = folder / "disk.img"
        with open(path, "wb") as opened:
            opened.truncate(64 * MIB)
        with self.serve(path) as server:
            handle = server.connect()
            handle.pwrite(b"kept" * KIB, 0)
            refused = 0
            for offset in range(MIB, 64 * MIB, MIB):
                try:
                    handle.pwrite(b"\1" * MIB, offset)
                except Exception as error:
                    self.assertEqual(error.errno, "ENOSPC")
                    refused += 1
            self.assertGreater(refused, 40)
            self.assert_same_bytes(handle.pread(4 * KIB, 0), b"kept" * KIB)


if __name__ == "__main__":
    served.main(Files)
