#!/usr/bin/python3
"""Files that fail under the server: full, cut off, deleted, taken away. The request concerned gets the error, its
neighbours are served, the log says what happened and not too often, and what has healed is served again."""
import contextlib
import errno
import os
import re
import subprocess
import time
from pathlib import Path

import served
from disks import DiskFacts
from extended_client import BLOCK_STATUS, ExtendedClient, NbdError
from raw_client import EIO, ENOSPC, FLUSH, READ, TRIM, WRITE_ZEROES, RawClient, request, write
from served import KIB, MIB

FUA, NO_HOLE = 1, 2


class Faults(DiskFacts):
    # What they share

    @contextlib.contextmanager
    def _served_and_left_as_before(self, path, *options, **how):
        """(server, one client, its neighbour). Afterwards the server has the descriptors that it had before."""
        with self.serve(path, *options, **how) as server:
            alone = server.descriptors()
            with RawClient.in_transmission(server) as client, RawClient.in_transmission(server) as neighbour:
                yield server, client, neighbour
                self.assertEqual(neighbour.ask(FLUSH)[1], 0)
            served.wait_until(lambda: server.descriptors() == alone, served.PATIENCE_S, "their descriptors' end")

    def _fails_many_times(self, server, client, wanted, what, **fields):
        """Every one of a hundred fails, and the log has a line a second about it at most, which says what failed."""
        said_before, began = len(self._said(server)), time.monotonic()
        payload = fields.pop("payload", b"")
        for number in range(100):
            client.send(request(what, number, payload=payload, **fields))
            self.assertEqual(client.reply()[:2], (number, wanted))
        said = self._said(server)[said_before:]
        self.assertTrue(1 <= len(said) <= time.monotonic() - began + 2, said)
        self.assertIn(f"{fields['length']} bytes at {fields['offset']} failed: ", said[0])
        return said

    @staticmethod
    def _said(server):
        return [line for line in server.log().splitlines() if " failed: " in line]

    @staticmethod
    def _fill_up(path):
        """Takes all the room that there is."""
        with open(path, "wb") as opened:
            size = MIB
            while size >= 4 * KIB:
                try:
                    os.posix_fallocate(opened.fileno(), os.fstat(opened.fileno()).st_size, size)
                except OSError as failure:
                    if failure.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def _loop_device(self, size):
        backing = self.image(size, "backing.img")
        return self.loop_device(backing), backing

    # Full

    @served.need("loop_devices")
    def a_full_file_system_is_enospc_until_there_is_room_again(self):
        self._full(self.mounted(32 * MIB))

    @served.need("loop_devices")
    def a_full_file_system_is_enospc_until_there_is_room_again_in_buffered_io(self):
        self._full(self.mounted(32 * MIB), "--io", "buffered")

    def a_full_tmpfs_is_enospc_until_there_is_room_again(self):
        self._full(self.mounted(16 * MIB, make=None), "--io", "buffered")

    def _full(self, folder, *options):
        path = folder / "disk.img"
        with open(path, "wb") as opened:
            opened.truncate(64 * MIB)
            opened.write(b"k" * MIB)
        with self._served_and_left_as_before(path, *options) as (server, client, neighbour):
            self._fill_up(folder / "filler")
            data = b"n" * (64 * KIB)
            [line, *_] = self._fails_many_times(server, client, ENOSPC, 1, offset=8 * MIB, length=len(data), payload=data)
            self.assertIn("WRITE of", line)
            self.assertIn("No space left on device", line)
            client.send(write(data, offset=8 * MIB, flags=FUA))
            self.assertEqual(client.reply()[1], ENOSPC)
            # Of direct I/O, want of room is no failed sync; through the page cache it cannot be told from one, and
            # what a sync has no room for is gone.
            self.assertEqual(neighbour.ask(FLUSH)[1], EIO if options else 0)
            # What has its place is written, read and flushed, by both.
            for each in (client, neighbour):
                each.send(write(b"w" * 5000, offset=100))
                self.assertEqual(each.reply()[1], 0)
                each.send(write(b"W" * 4096, offset=8 * KIB, flags=FUA))
                self.assertEqual(each.reply()[1], 0)
                self.assertEqual(each.ask(READ, 5000, offset=100, length=5000), (0, 0, b"w" * 5000))
                self.assertEqual(each.ask(FLUSH)[1], 0)
            # A trim makes room, and so does whoever filled it up.
            self.assertEqual(neighbour.ask(TRIM, offset=512 * KIB, length=512 * KIB)[1], 0)
            client.send(write(data, offset=8 * MIB))
            self.assertEqual(client.reply()[1], 0)
            (folder / "filler").unlink()
            client.send(write(data, offset=32 * MIB, flags=FUA))
            self.assertEqual(client.reply()[1], 0)
            self.assertEqual(client.ask(WRITE_ZEROES, offset=16 * MIB, length=MIB, flags=NO_HOLE)[1], 0)
            self.assertEqual(neighbour.ask(READ, len(data), offset=32 * MIB, length=len(data))[2], data)

    def a_limit_on_the_size_of_files_is_enospc_and_not_the_end(self):
        """The system would rather kill a process that writes past it."""
        path = self.sparse(8 * MIB)
        limited = ["bash", "-c", 'ulimit -f 4096; exec "$@"', "bash"]  # in KiB
        for options in ([], ["--io", "buffered"]):
            with self._served_and_left_as_before(path, *options, prefix=limited) as (server, client, neighbour):
                said = self._fails_many_times(server, client, ENOSPC, 1, offset=6 * MIB, length=4096, payload=bytes(4096))
                self.assertIn("File too large", said[0])
                neighbour.send(write(b"y" * 4096, offset=MIB, flags=FUA))
                self.assertEqual(neighbour.reply()[1], 0)

    # Half made

    def a_server_killed_while_it_makes_its_file_leaves_nothing_behind(self):
        self.need("strace")
        path = self.folder / "new.img"
        arguments = ["--unix", self.free_socket(), "--create", "5M", "--preallocate", path]
        for call in ("ftruncate", "fallocate", "fsync", "linkat"):
            killed = subprocess.run(["strace", "-f", "-o", self.folder / "trace", "-e", f"inject={call}:signal=KILL",
                                     served.program, *arguments], stderr=subprocess.DEVNULL, check=False,
                                    env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}, timeout=60)
            self.assertNotEqual(killed.returncode, 0)
            self.assertIn(f"{call}(", (self.folder / "trace").read_text())
            self.assertFalse(path.exists(), call)
        with served.Server(self.sockets, arguments) as server:
            self.assertEqual(server.connect().get_size(), 5 * MIB)

    def a_file_is_made_where_there_is_no_proc(self):
        """Which is the way to name what was made without a name, and to open the end of an odd-sized one."""
        self.need_root()
        self.need("unshare")
        if served.is_sanitized():
            return  # Such a build needs /proc itself.
        without = ["unshare", "--mount", "sh", "-c", 'umount --lazy /proc && exec "$@"', "sh"]
        for size in (2 * MIB, 2 * MIB + 333):
            path = self.folder / f"new-{size}.img"
            with self.serve(path, "--create", size, "--preallocate", prefix=without) as server:
                self.assertEqual(os.listdir(Path(f"/proc/{server.pid}", "root", "proc")), [])
                with RawClient.in_transmission(server) as client:
                    client.send(write(b"end", offset=size - 3, flags=FUA))
                    self.assertEqual(client.reply()[1], 0)
            content = path.read_bytes()
            self.assertEqual((len(content), content[-4:]), (size, b"\0end"))
            self.assertGreaterEqual(path.stat().st_blocks * 512, size)

    def a_folder_that_knows_no_sync_is_no_obstacle_and_one_that_fails_is(self):
        self.need("strace")
        trace = self.folder / "trace"

        def with_folders(error):
            # The first sync is the file's.
            return ["strace", "-f", "-o", trace, "-e", "trace=fsync", "-e", f"inject=fsync:error={error}:when=2"]
        no_leaks = {"ASAN_OPTIONS": "detect_leaks=0"}
        path = self.folder / "new.img"
        done = subprocess.run([*with_folders("EIO"), served.program, "--unix", self.free_socket(), "--create", "1M", path],
                              stderr=subprocess.PIPE, text=True, check=False, env={**os.environ, **no_leaks}, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot sync {path}: Input/output error", done.stderr)
        self.assertFalse(path.exists())
        with self.serve(path, "--create", "1M", prefix=with_folders("EINVAL"), environment=no_leaks) as server:
            self.assertEqual(server.connect().get_size(), MIB)
        # Then the file once more, which has its name by now.
        synced = re.findall(r"fsync\((\d+)\) += (\S+)", trace.read_text())
        self.assertEqual([result for _, result in synced], ["0", "-1", "0"])
        self.assertEqual(synced[0][0], synced[2][0])

    # Cut off

    def a_file_that_is_cut_off_is_eio_where_it_was(self):
        self._cut_off(self.image(8 * MIB))

    def a_sparse_file_that_is_cut_off_is_eio_and_no_hole_where_it_was(self):
        path = self.sparse(8 * MIB)
        with open(path, "r+b") as opened:
            opened.write(b"d" * MIB)
        self._cut_off(path)

    def a_file_of_buffered_io_that_is_cut_off_is_eio_where_it_was(self):
        self._cut_off(self.image(8 * MIB), "--io", "buffered")

    def an_odd_sized_file_that_is_cut_off_is_eio_where_it_was(self):
        self._cut_off(self.image(8 * MIB + 333))

    def _cut_off(self, path, *options):
        size = path.stat().st_size
        content = path.read_bytes()
        with self._served_and_left_as_before(path, *options) as (server, client, neighbour):
            os.truncate(path, 4 * MIB)
            self._fails_many_times(server, client, EIO, READ, offset=5 * MIB, length=128 * KIB)
            for offset, length in ((4 * MIB, 1), (4 * MIB - 1, 2), (size - 1, 1), (3 * MIB, 2 * MIB)):
                self.assertEqual(client.ask(READ, offset=offset, length=length)[1], EIO, (offset, length))
            with ExtendedClient(server) as other:
                # Nobody is told that what was lost is zeroes.
                for offset, length in ((5 * MIB, MIB), (4 * MIB, 64 * KIB), (3 * MIB, 2 * MIB)):
                    with self.assertRaises(NbdError) as failed:
                        other.read(offset, length)
                    self.assertEqual(failed.exception.number, EIO)
                    with self.assertRaises(NbdError) as failed:
                        other.block_status(offset, length)
                    self.assertEqual(failed.exception.number, EIO)
                self.assert_same_bytes(other.read(MIB, 2 * MIB)[0], content[MIB:3 * MIB])
                self.assertEqual(sum(length for length, _ in other.block_status(0, 4 * MIB)), 4 * MIB)
            self.assertEqual(neighbour.ask(READ, 4 * KIB, offset=4 * MIB - 4 * KIB, length=4 * KIB)[2],
                             content[4 * MIB - 4 * KIB:4 * MIB])
            # What is written there is there, and the file grows no further than the disk.
            neighbour.send(write(b"x" * 4096, offset=6 * MIB, flags=FUA))
            self.assertEqual(neighbour.reply()[1], 0)
            self.assertEqual(client.ask(READ, 4096, offset=6 * MIB, length=4096)[2], b"x" * 4096)
            os.truncate(path, size)
            self.assertEqual(client.ask(READ, 1, offset=size - 1, length=1)[1], 0)
            self.assertIn("Input/output error", server.log())
        self.assertEqual(path.stat().st_size, size)

    # Deleted

    def a_file_that_is_deleted_is_served_to_the_end(self):
        path = self.image(2 * MIB + 333)
        with self._served_and_left_as_before(path) as (server, client, neighbour):
            path.unlink()
            client.send(write(b"still" * 1000, offset=2 * MIB - 1000, flags=FUA))
            self.assertEqual(client.reply()[1], ENOSPC)  # that was past the end
            client.send(write(b"s" * 1000, offset=2 * MIB - 700, flags=FUA))
            self.assertEqual(client.reply()[1], 0)
            self.assertEqual(neighbour.ask(READ, 1000, offset=2 * MIB - 700, length=1000)[2], b"s" * 1000)
            for what in (TRIM, WRITE_ZEROES):
                self.assertEqual(neighbour.ask(what, offset=0, length=MIB)[1], 0)
            self.assertEqual(self._said(server), [])
        self.assertFalse(path.exists())

    # Taken away

    @served.need("loop_devices")
    def a_loop_device_that_is_detached_is_served_to_the_end(self):
        device, backing = self._loop_device(4 * MIB)
        with self._served_and_left_as_before(device) as (_, client, neighbour):
            self.run_tool("losetup", "--detach", device)
            client.send(write(b"l" * 5000, offset=700, flags=FUA))
            self.assertEqual(client.reply()[1], 0)
            self.assertEqual(neighbour.ask(READ, 5000, offset=700, length=5000)[2], b"l" * 5000)
        served.wait_until(lambda: str(backing) not in self.run_tool("losetup", "--list"), served.PATIENCE_S, "its end")
        self.assert_same_bytes(backing.read_bytes()[700:5700], b"l" * 5000)

    @served.need("loop_devices")
    def a_loop_device_whose_file_is_gone_is_eio_and_heals_with_it(self):
        device, backing = self._loop_device(4 * MIB)
        with self._served_and_left_as_before(device) as (server, client, neighbour):
            os.truncate(backing, 0)
            said = self._fails_many_times(server, client, EIO, READ, offset=MIB, length=64 * KIB)
            self.assertIn("Input/output error", said[0])
            with ExtendedClient(server) as other:
                with self.assertRaises(NbdError) as failed:
                    other.read(0, MIB)
                self.assertEqual(failed.exception.number, EIO)
                self.assertEqual(len(other.ask(BLOCK_STATUS, 0, MIB)), 1)
            os.truncate(backing, 4 * MIB)
            neighbour.send(write(b"back" * KIB, offset=MIB, flags=FUA))
            self.assertEqual(neighbour.reply()[1], 0)
            self.assertEqual(client.ask(READ, 4 * KIB, offset=MIB, length=4 * KIB)[2], b"back" * KIB)

    @served.need("loop_devices")
    def a_disk_that_shrinks_to_nothing_fails_and_heals_when_it_grows_back(self):
        device, backing = self._loop_device(4 * MIB)
        with self._served_and_left_as_before(device) as (server, client, neighbour):
            os.truncate(backing, 0)
            self.run_tool("losetup", "--set-capacity", device)
            self._fails_many_times(server, client, EIO, READ, offset=MIB, length=4096)
            client.send(write(bytes(4096), offset=MIB))
            self.assertEqual(client.reply()[1], EIO)  # not the system's ENOSPC: nobody can make room there
            self.assertEqual(neighbour.ask(FLUSH)[1], 0)
            os.truncate(backing, 4 * MIB)
            self.run_tool("losetup", "--set-capacity", device)
            neighbour.send(write(b"grown" * 1000, offset=MIB + 1, flags=FUA))
            self.assertEqual(neighbour.reply()[1], 0)
            self.assertEqual(client.ask(READ, 5000, offset=MIB + 1, length=5000)[2], b"grown" * 1000)

    # Nobody reads the log

    def a_log_that_nobody_reads_any_more_does_not_end_the_server(self):
        path, place = self.sparse(MIB), self.free_socket()
        process = subprocess.Popen([served.program, "--unix", place, path], stderr=subprocess.PIPE)
        try:
            served.wait_until(lambda: os.path.exists(place), served.PATIENCE_S, "a socket")
            said = b""
            while not re.search(rb"(?m)^.*listening.*$", said):
                said += os.read(process.stderr.fileno(), 4096)
            process.stderr.close()
            for _ in range(3):
                # Each client is a line of the log.
                handle = served_handle(place)
                handle.pwrite(b"q" * 512, 0)
                handle.shutdown()
            process.terminate()
            self.assertEqual(process.wait(served.PATIENCE_S), 0)
        finally:
            process.kill()
            process.wait()


def served_handle(place):
    import nbd
    handle = nbd.NBD()
    handle.connect_unix(place)
    return handle


if __name__ == "__main__":
    served.main(Faults)
