#!/usr/bin/python3
"""It is really direct and really asynchronous: what the kernel says about the running server."""
import os
import re

import nbd
import served
from served import GIB, KIB, MIB

CONNECTIONS = 4
IN_FLIGHT = 8 * MIB


class DirectIo(served.Facts):
    def _allocated(self, size):
        path = self.folder / "disk.img"
        with open(path, "wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, size)
        return path

    def _cached_pages(self, path):
        self.need("fincore")
        return int(self.run_tool("fincore", "--noheadings", "--output=PAGES", path).strip() or 0)

    def _fio(self, server, *options):
        self.need("fio")
        self.run_tool("fio", "--name=job", "--ioengine=nbd", f"--uri={server.uri}", *options, cwd=self.folder)

    def _traced(self, path, client, *options):
        """The system calls on data that the server made for what `client` does with it."""
        self.need("strace")
        trace = self.folder / "trace"
        with self.serve(path, *options, environment={"ASAN_OPTIONS": "detect_leaks=0"}, prefix=[
                "strace", "-f", "-o", trace, "-e", "trace=io_submit,read,write,readv,writev,pread64,pwrite64,preadv,"
                "pwritev,preadv2,pwritev2,fsync,fdatasync,sendmsg,sendto"]) as server:
            client(server)
        _, ready, after = trace.read_text().partition("READY=1")
        self.assertTrue(ready)
        return after

    # Direct

    def the_file_is_open_with_o_direct(self):
        image = self.image(MIB)
        with self.serve(image) as server:
            self.assertEqual([bool(flags & os.O_DIRECT) for flags in server.descriptors_of(image)], [True])

    def an_odd_sized_file_is_open_a_second_time_for_its_tail(self):
        image = self.image(MIB + 333)
        with self.serve(image) as server:
            self.assertEqual(sorted(bool(flags & os.O_DIRECT) for flags in server.descriptors_of(image)),
                             [False, True])

    def a_read_only_file_is_open_for_reading_only(self):
        image = self.image(MIB)
        with self.serve(image, "--read-only") as server:
            self.assertEqual([flags & os.O_ACCMODE for flags in server.descriptors_of(image)], [os.O_RDONLY])

    def buffered_io_is_not_direct(self):
        image = self.image(MIB)
        with self.serve(image, "--io", "buffered") as server:
            self.assertFalse(any(flags & os.O_DIRECT for flags in server.descriptors_of(image)))

    @served.need("disk")
    def a_gib_of_traffic_leaves_no_page_in_the_cache_and_little_in_memory(self):
        image = self._allocated(256 * MIB)
        with self.serve(image, "--max-in-flight", IN_FLIGHT) as server:
            for options in ("--rw=write",), ("--rw=randrw", "--io_size=192m"):
                self._fio(server, *options, "--bs=256k", "--size=64m", "--iodepth=16", f"--numjobs={CONNECTIONS}",
                          "--offset_increment=64m")
            peak = server.status("VmHWM")
            # What it has read and written as files, sockets not counted.
            moved = dict(line.split(": ") for line in open(f"/proc/{server.pid}/io", encoding="ascii"))
            self.assertGreater(int(moved["read_bytes"]) + int(moved["write_bytes"]), 0.9 * GIB)
            self.assertEqual(self._cached_pages(image), 0)
        # The pool, each connection's share and receive buffer, and the program itself.
        bound = 128 * MIB + CONNECTIONS * (IN_FLIGHT + 256 * KIB) + 32 * MIB
        if served.is_sanitized():
            bound += 256 * MIB
        self.assertLess(peak, bound)

    def unaligned_traffic_leaves_no_page_in_the_cache(self):
        image = self._allocated(16 * MIB)
        with self.serve(image) as server:
            self._fio(server, "--rw=randrw", "--bsrange=100-20000", "--bs_unaligned=1", "--size=16m", "--iodepth=8")
            self.assertEqual(self._cached_pages(image), 0)

    def of_an_odd_sized_file_only_the_tail_is_cached(self):
        image = self._allocated(4 * MIB + 333)
        with self.serve(image) as server:
            handle = server.connect()
            for offset in range(0, 4 * MIB, MIB):
                handle.pwrite(b"x" * MIB, offset)
            handle.pwrite(b"tail" * 83, 4 * MIB + 1)
            handle.flush()
            self.assertEqual(handle.pread(4, 4 * MIB + 1), b"tail")
            self.assertLessEqual(self._cached_pages(image), 1)
            handle.shutdown()

    # Asynchronous

    def reads_and_writes_are_io_submit_and_nothing_else(self):
        image = self._allocated(8 * MIB)
        calls = self._traced(image, lambda server: self._fio(
            server, "--rw=randrw", "--bs=16k", "--size=4m", "--iodepth=8"))
        for direction in ("IOCB_CMD_PREAD", "IOCB_CMD_PWRITE"):
            self.assertGreater(calls.count(direction), 50)
        self.assertNotRegex(calls, r"\b(p(read|write)(64|v2?)|readv|writev|fsync|fdatasync)\(")
        # Of read() and write() there are those of eventfds, 8 bytes each, and the log.
        sizes = [int(size) for size in re.findall(r"\bread\(.*= (\d+)$", calls, re.MULTILINE)]
        self.assertLessEqual(max(sizes, default=0), 8)

    def many_requests_share_an_io_submit(self):
        image = self._allocated(8 * MIB)
        calls = self._traced(image, lambda server: self._fio(
            server, "--rw=randread", "--bs=4k", "--size=8m", "--iodepth=32"))
        requests = calls.count("IOCB_CMD_PREAD")
        self.assertGreaterEqual(requests, 2048)
        # A slow server finds fewer requests at a time; none of them may have been sent alone on principle.
        self.assertLess(calls.count("io_submit("), requests * 0.9)

    def a_flush_is_a_sync_by_io_submit(self):
        def client(server):
            handle = server.connect()
            handle.pwrite(b"x" * 4096, 0)
            handle.flush()
            handle.shutdown()
        calls = self._traced(self._allocated(MIB), client)
        self.assertEqual(calls.count("IOCB_CMD_FDSYNC"), 1)

    def a_fua_write_is_a_synchronous_write(self):
        def client(server):
            handle = server.connect()
            handle.pwrite(b"x" * 4096, 0)
            handle.pwrite(b"x" * 4096, 4096, nbd.CMD_FLAG_FUA)
            handle.shutdown()
        calls = self._traced(self._allocated(MIB), client)
        self.assertEqual(calls.count("IOCB_CMD_PWRITE"), 2)
        self.assertEqual(calls.count("RWF_DSYNC"), 1)


if __name__ == "__main__":
    served.main(DirectIo)
