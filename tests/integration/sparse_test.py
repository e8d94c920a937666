#!/usr/bin/python3
"""Sparse images through the tools: maps, and copies that cost what the data is, not what the size is."""
import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import served
from counting_proxy import CountingProxy
from extended_client import ExtendedClient
from served import GIB, KIB, MIB

TIB = GIB << 10
EXTENTS = 100_000
PATIENCE_S = 110  # generous: what it really took is printed


def space_of(path):
    return os.stat(path).st_blocks * 512


class Sparse(served.Facts):
    def _run(self, *command):
        """The output, and how long it took."""
        begin = time.monotonic()
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout, time.monotonic() - begin

    # Maps

    def _map_a_tebibyte(self, folder):
        image = Path(folder) / "tebibyte.img"
        apart = TIB // EXTENTS // 4096 * 4096
        with open(image, "xb") as opened:
            opened.truncate(TIB)
            for i in range(EXTENTS):
                os.pwrite(opened.fileno(), b"x" * 4096, i * apart)
            # A map is of what is on the disk. Writing 400 MiB there would take most of the time that is measured.
            os.fsync(opened.fileno())
        with self.serve(image) as server:
            shown, taken_s = self._run("nbdinfo", "--map", server.uri)
            lines = shown.splitlines()
            self.assertEqual(len(lines), 2 * EXTENTS)
            self.assertEqual(lines[-2].split()[:3], [str((EXTENTS - 1) * apart), "4096", "0"])
            print(f"nbdinfo --map of {EXTENTS} extents on {folder}: {taken_s:.2f} s")
            begin = time.monotonic()
            with ExtendedClient(server) as client:
                self.assertEqual(len(client.whole_map()), 2 * EXTENTS)
            print(f"the same with extended headers: {time.monotonic() - begin:.2f} s")

    def a_tebibyte_of_100_000_extents_is_mapped_on_a_file_system_without_a_map(self):
        self.need("nbdinfo")
        if not os.path.ismount("/dev/shm"):
            self.skipTest("no tmpfs at /dev/shm")
        folder = tempfile.mkdtemp(dir="/dev/shm", prefix="aionbd-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self._map_a_tebibyte(folder)

    # One of its own: deleting so many extents takes minutes where each is discarded.
    def a_tebibyte_of_100_000_extents_is_mapped_on_ext4(self):
        self.need("nbdinfo", "mkfs.ext4", "mount")
        self.need_root()
        below = self.sparse(2 * GIB, "ext4.img")
        self._run("mkfs.ext4", "-q", "-E", "nodiscard", below)
        folder = self.folder / "mounted"
        folder.mkdir()
        if subprocess.run(["mount", "-o", "loop,nodiscard", below, folder], check=False).returncode != 0:
            self.skipTest("no loop device can be mounted here")
        self.addCleanup(subprocess.run, ["umount", "--lazy", folder], check=False)
        self._map_a_tebibyte(folder)

    # Copies

    def _sparse_source(self, name, size=10 * GIB, data=100 * MIB):
        """`data` bytes in pieces of 1 MiB all over it."""
        path = self.sparse(size, name)
        pieces = data // MIB
        generator = random.Random(3)
        with open(path, "r+b") as opened:
            for i in range(pieces):
                at = size // pieces * i + generator.randrange(MIB // 4096) * 4096
                os.pwrite(opened.fileno(), generator.randbytes(MIB), at)
        return path

    def _assert_same_and_as_sparse(self, copy, source):
        # It looks for holes itself, so that 10 GiB take no time.
        self.run_tool("qemu-img", "compare", "-f", "raw", "-F", "raw", source, copy)
        self.assertEqual(os.path.getsize(copy), os.path.getsize(source))
        self.assertLess(space_of(copy), space_of(source) + MIB)

    @served.need("disk")
    def nbdcopy_fetches_only_the_data_of_a_sparse_image(self):
        self.need("nbdcopy", "qemu-img")
        source = self._sparse_source("source.img")
        copy = self.folder / "copy.img"
        with self.serve(source) as server, CountingProxy(server, self.free_socket()) as proxy:
            _, taken_s = self._run("nbdcopy", proxy.uri, copy)
            print(f"fetched 10 GiB with 100 MiB of data: {proxy.bytes / MIB:.2f} MiB of traffic, {taken_s:.2f} s")
            self.assertLess(proxy.bytes, 101 * MIB)
        self._assert_same_and_as_sparse(copy, source)

    @served.need("disk")
    def nbdcopy_stores_only_the_data_of_a_sparse_image(self):
        self.need("nbdcopy", "qemu-img")
        source = self._sparse_source("source.img")
        image = self.sparse(10 * GIB, "image.img")
        with self.serve(image) as server, CountingProxy(server, self.free_socket()) as proxy:
            _, taken_s = self._run("nbdcopy", source, proxy.uri)
            print(f"stored 10 GiB with 100 MiB of data: {proxy.bytes / MIB:.2f} MiB of traffic, {taken_s:.2f} s")
            self.assertLess(proxy.bytes, 101 * MIB)
        self._assert_same_and_as_sparse(image, source)

    @served.need("disk")
    def qemu_img_converts_a_sparse_image_both_ways(self):
        self.need("qemu-img")
        source = self._sparse_source("source.img", GIB, 10 * MIB)
        copy = self.folder / "copy.img"
        image = self.sparse(GIB, "image.img")
        with self.serve(source, "--read-only") as server, CountingProxy(server, self.free_socket()) as proxy:
            self._run("qemu-img", "convert", "-f", "raw", "-O", "raw", "-S", "64k", proxy.uri, copy)
            self.assertLess(proxy.bytes, 12 * MIB)
        self._assert_same_and_as_sparse(copy, source)
        with self.serve(image) as server, CountingProxy(server, self.free_socket()) as proxy:
            self._run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, proxy.uri)
            self.assertLess(proxy.bytes, 12 * MIB)
        self._assert_same_and_as_sparse(image, source)

    # A client that does not ask for the map, only for the bytes.
    def plain_reads_of_a_sparse_image_carry_only_its_data(self):
        source = self._sparse_source("source.img", 256 * MIB, 4 * MIB)
        content = source.read_bytes()
        with self.serve(source) as server, CountingProxy(server, self.free_socket()) as proxy:
            import nbd
            handle = nbd.NBD()
            handle.connect_uri(proxy.uri)
            for at in range(0, 256 * MIB, 16 * MIB):
                self.assert_same_bytes(bytes(handle.pread(16 * MIB, at)), content[at:at + 16 * MIB])
            handle.shutdown()
            self.assertLess(proxy.bytes, 4 * MIB + 64 * KIB)


if __name__ == "__main__":
    served.main(Sparse)
