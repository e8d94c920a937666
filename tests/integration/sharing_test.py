#!/usr/bin/python3
"""The image lock: who may open an image that is being served, and who may not. The table is README's."""
import contextlib
import os
import signal
import subprocess

import served
from served import MIB


class Sharing(served.Facts):
    def _refused(self, pattern, *arguments):
        said = self.run_tool(served.program, "--unix", self.free_socket(), *arguments, status=1)
        self.assertRegex(said, pattern)
        self.assertEqual(len(said.splitlines()), 1)

    @contextlib.contextmanager
    def _open_in_qemu(self, image, *options):
        self.need("qemu-nbd")
        path = self.free_socket()
        holder = subprocess.Popen(["qemu-nbd", "--format=raw", "--persistent", f"--socket={path}", *options, image])
        try:
            served.wait_until(lambda: os.path.exists(path), served.PATIENCE_S, "qemu-nbd")
            yield
        finally:
            holder.terminate()
            holder.wait(served.PATIENCE_S)

    # aionbd and aionbd

    def a_file_that_another_aionbd_writes_is_refused(self):
        image = self.image(MIB)
        with self.serve(image):
            self._refused(r"disk\.img is locked by another process; writing needs it exclusively", image)

    def a_file_that_another_aionbd_writes_is_refused_even_for_reading(self):
        image = self.image(MIB)
        with self.serve(image):
            self._refused(r"disk\.img is open for writing by another process", "--read-only", image)

    def a_file_by_another_name_is_the_same_file(self):
        image = self.image(MIB)
        os.link(image, self.folder / "other.img")
        with self.serve(image):
            self._refused("locked by another process", self.folder / "other.img")

    def two_read_only_servers_share_a_file(self):
        image = self.image(MIB)
        with self.serve(image, "--read-only") as first, self.serve(image, "--read-only") as second:
            self.assertEqual(first.connect().pread(100, 7), second.connect().pread(100, 7))
            self._refused("locked by another process", image)

    def the_lock_is_gone_when_the_server_is(self):
        image = self.image(MIB)
        with self.serve(image):
            pass
        with self.serve(image) as killed:
            killed.signal(signal.SIGKILL)
            killed.wait()
        with self.serve(image):
            pass

    def the_odd_tail_does_not_weaken_the_lock(self):
        image = self.image(MIB + 333)
        with self.serve(image) as server:
            handle = server.connect()
            handle.pwrite(b"tail", MIB + 300)
            handle.flush()
            self._refused("locked by another process", image)

    # QEMU first

    def a_file_that_qemu_writes_is_refused(self):
        image = self.image(MIB)
        with self._open_in_qemu(image):
            self._refused("locked by another process", image)
            self._refused("open for writing by another process", "--read-only", image)

    def a_file_that_qemu_reads_is_shared_with_readers(self):
        image = self.image(MIB)
        with self._open_in_qemu(image, "--read-only"), self.serve(image, "--read-only") as server:
            self.assertEqual(server.connect().get_size(), MIB)

    # aionbd first

    def qemu_does_not_write_a_served_file(self):
        image = self.image(MIB)
        for options in ([], ["--read-only"]):
            with self.serve(image, *options):
                said = self.run_tool("qemu-io", "-f", "raw", "-c", "write 0 512", image, status=1)
                self.assertRegex(said, r'Failed to get ("write"|shared "write") lock|Failed to get .* lock')

    def qemu_img_does_not_read_a_file_that_is_being_written(self):
        image = self.image(MIB)
        copy = self.folder / "copy"
        with self.serve(image):
            said = self.run_tool("qemu-img", "convert", "-f", "raw", "-O", "raw", image, copy, status=1)
            self.assertRegex(said, r"Failed to get .* lock")
            self.run_tool("qemu-img", "convert", "-U", "-f", "raw", "-O", "raw", image, copy)

    def qemu_img_reads_a_file_that_is_served_read_only(self):
        image = self.image(MIB)
        copy = self.folder / "copy"
        with self.serve(image, "--read-only"):
            self.run_tool("qemu-img", "convert", "-f", "raw", "-O", "raw", image, copy)
        self.assert_same_bytes(copy.read_bytes(), image.read_bytes())


if __name__ == "__main__":
    served.main(Sharing)
