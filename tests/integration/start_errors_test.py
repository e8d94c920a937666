#!/usr/bin/python3
"""What cannot be served is refused at start: one line that names it and says what to do, and nothing was changed."""
import contextlib
import ctypes
import ctypes.util
import os
import socket
import subprocess
from pathlib import Path

import served
from served import MIB


class StartErrors(served.Facts):
    def _tree(self):
        """Names, sizes and times; not the times of folders, which change when something comes and goes."""
        facts = {path: path.lstat() for path in [*self.folder.rglob("*"), *self.sockets.rglob("*")]}
        return sorted((str(path), each.st_size, 0 if path.is_dir() else each.st_mtime_ns)
                      for path, each in facts.items() if not path.is_dir() or not path.is_mount())

    def _refused(self, pattern, *arguments, status=1, prefix=()):
        """The program ends with `status` and one line about it."""
        before = self._tree()
        done = subprocess.run([*prefix, served.program, *map(str, arguments)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, timeout=20)
        said = done.stderr.splitlines()
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertRegex(said[0], r"^aionbd: " + pattern)
        self.assertEqual(said[1:], [] if status == 1 else ["Try aionbd --help."])
        self.assertEqual(self._tree(), before, "something was created or changed")

    def _misused(self, pattern, *arguments):
        self._refused(pattern, *arguments, status=2)

    def _socket(self):
        return ["--unix", self.free_socket()]

    # The file

    def a_missing_file(self):
        self._refused(r".*no\.img does not exist; --create SIZE makes it$", *self._socket(), self.folder / "no.img")

    def a_missing_folder_for_a_new_file(self):
        self._refused(r"cannot create .*no/new\.img: No such file", *self._socket(), "--create", "1M",
                      self.folder / "no" / "new.img")

    def a_directory(self):
        self._refused(r".* is a directory; only regular files and block devices", *self._socket(), self.folder)

    def a_pipe(self):
        os.mkfifo(self.folder / "pipe")
        self._refused(r".*pipe is a pipe; only regular files", *self._socket(), self.folder / "pipe")

    def a_socket(self):
        path = self.free_socket()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            self._refused(r".* is a socket; only regular files", *self._socket(), path)

    def a_character_device(self):
        self._refused(r"/dev/null is a character device; only regular files", *self._socket(), "/dev/null")

    def an_empty_file(self):
        self._refused(r".*disk\.img is empty: there is nothing to serve", *self._socket(), self.image(b""))

    def a_file_that_may_not_be_read(self):
        image = self.image(MIB)
        os.chmod(image, 0)
        self._refused(r"cannot open .*disk\.img: Permission denied", *self._socket(), "--read-only", image,
                      prefix=self._without_override())

    def a_file_that_may_not_be_written(self):
        image = self.image(MIB)
        os.chmod(image, 0o400)
        self._refused(r"cannot open for writing .*disk\.img: Permission denied", *self._socket(), image,
                      prefix=self._without_override())

    def _without_override(self):
        """Even root is asked for permission when it lacks these capabilities."""
        if os.geteuid() != 0:
            return []
        self.need("setpriv")
        return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]

    def a_file_system_that_refuses_direct_io(self):
        self._refused(r"/proc/self/comm is on a file system \(proc\) that refuses direct I/O.*--io buffered",
                      *self._socket(), "/proc/self/comm")

    def a_new_file_where_direct_io_is_refused_is_taken_back(self):
        self.need_root()
        mounted = self.folder / "mounted"
        mounted.mkdir()
        if subprocess.run(["mount", "-t", "ramfs", "ramfs", mounted], check=False).returncode != 0:
            self.skipTest("cannot mount here")
        self.addCleanup(subprocess.run, ["umount", mounted], check=True)
        self._refused(r".* is on a file system \(ramfs\) that refuses direct I/O", *self._socket(), "--create", "1M",
                      mounted / "new.img")

    # Creating it

    def create_leaves_an_existing_file_alone(self):
        image = self.image(MIB + 1)
        content, before = image.read_bytes(), image.stat().st_mtime_ns
        with self.serve(image, "--create", "5M", "--preallocate") as server:
            self.assertEqual(server.connect().get_size(), MIB + 1)
        self.assert_same_bytes(image.read_bytes(), content)
        self.assertEqual(image.stat().st_mtime_ns, before)

    def create_does_not_fill_an_empty_file(self):
        self._refused(r".*disk\.img is empty", *self._socket(), "--create", "5M", self.image(b""))

    def a_new_file_that_is_too_large_is_taken_back(self):
        self._refused(r"cannot set the size of .*new\.img: File too large", *self._socket(), "--create", "7E",
                      self.folder / "new.img")

    def a_new_file_without_space_for_it_is_taken_back(self):
        self.need_root()
        mounted = self.folder / "mounted"
        mounted.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mounted], check=False).returncode != 0:
            self.skipTest("cannot mount here")
        self.addCleanup(subprocess.run, ["umount", mounted], check=True)
        self._refused(r"cannot allocate the space of .*new\.img: No space left", *self._socket(), "--create", "64M",
                      "--preallocate", mounted / "new.img")

    def a_new_file_is_taken_back_when_the_address_is_in_use(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            self._refused(r"cannot listen on 127\.0\.0\.1:\d+: Address already in use", "--create", "1M", "--listen",
                          f"127.0.0.1:{other.getsockname()[1]}", self.folder / "new.img")

    # Resources

    @served.alone
    def no_room_for_an_aio_queue_names_the_sysctl(self):
        image = self.image(MIB)
        with self._aio_used_up():
            self._refused(r".*sysctl fs\.aio-max-nr", *self._socket(), image)
            self._refused(r".*sysctl fs\.aio-max-nr", *self._socket(), "--create", "1M", self.folder / "new.img")
        with self.serve(image):
            pass

    def no_room_for_all_of_its_threads_ends_it_with_a_word_about_that(self):
        self.need_root()
        image, nobody_else = self.image(MIB), "64999:64999"
        subprocess.run([served.program, "keygen", "psk", self.folder / "keys.psk", "--user", "alice"],
                       stdout=subprocess.DEVNULL, check=True)
        for limit in range(1, 50):
            try:
                server = self.serve(image, "--user", nobody_else, "--threads", 3, "--tls-psk", self.folder / "keys.psk",
                                    prefix=["prlimit", f"--nproc={limit}:{limit}"])
            except AssertionError as ended:
                self.assertIn("\naionbd: cannot start a thread: Resource temporarily unavailable\n", str(ended))
                continue
            server.stop()
            break
        # The first loop, eight that may block, one that reads keys, and two more loops.
        self.assertGreaterEqual(limit, 12)

    @contextlib.contextmanager
    def _aio_used_up(self):
        """Takes what is left of fs.aio-max-nr."""
        library = ctypes.CDLL(ctypes.util.find_library("aio") or "libaio.so.1", use_errno=True)
        contexts, size = [], 1 << 16
        while size >= 16:
            context = ctypes.c_void_p()
            if library.io_setup(size, ctypes.byref(context)) == 0:
                contexts.append(context)
            else:
                size //= 2
        try:
            self.assertTrue(contexts)
            yield
        finally:
            for context in contexts:
                library.io_destroy(context)

    def an_address_in_use(self):
        image = self.image(MIB)
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            self._refused(rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use; .*choose another port",
                          "--listen", f"127.0.0.1:{port}", image)

    def an_address_of_another_machine(self):
        self._refused(r"cannot listen on 192\.0\.2\.1:\d+: Cannot assign requested address", "--listen", "192.0.2.1",
                      self.image(MIB))

    def a_host_that_nobody_knows(self):
        self._refused(r"--listen: 'no\.such\.host\.invalid' is not known", "--listen", "no.such.host.invalid",
                      self.image(MIB))

    def a_socket_in_a_missing_folder(self):
        self._refused(r"--unix: cannot create .*no/socket: No such file", "--unix", self.sockets / "no" / "socket",
                      self.image(MIB))

    # The command line

    def no_file(self):
        self._misused("FILE is required")

    def two_files(self):
        self._misused(".*other", *self._socket(), self.image(MIB), "other")

    def an_empty_file_name(self):
        self._misused("FILE: the name is empty", "")

    def an_unknown_option(self):
        self._misused(".*--bogus", "--bogus", self.image(MIB))

    def an_option_without_its_value(self):
        image = self.image(MIB)
        for option in ("--threads", "--unix", "--listen", "--name", "--create", "--max-in-flight", "--log-level"):
            with self.subTest(option):
                self._misused(rf"{option}", image, option)

    def bad_numbers(self):
        image = self.image(MIB)
        for option in ("--threads", "--max-connections", "--handshake-timeout", "--queue-depth"):
            for value in ("0", "1.5", "x", "99999999999999999999", "4G", "-1", " 1", "0x1", "1e3", "100000"):
                with self.subTest(f"{option} {value}"):
                    self._misused(rf"{option}: '{value}' is not a number from 1 to \d+$", f"{option}={value}", image)

    def bad_drain_timeouts(self):
        for value in ("x", "1.5", "100000"):
            self._misused(rf"--drain-timeout: '{value}' is not a number from 0 to 3600", "--drain-timeout", value,
                          self.image(MIB))

    def bad_sizes(self):
        new = self.folder / "new.img"
        for value, complaint in (("0", "a file of 0 bytes"), ("x", "'x'"), ("1X", "'X' is no unit; use K, M, G or T"),
                                 ("1.5G", "'.5G' is no unit"), ("-1M", "'-1M' is no unit"), ("9E", "'9' is not a number"),
                                 ("99999999999999999999", "is not a number"), ("1MM", "'MM' is no unit"), ("M", "''")):
            with self.subTest(value):
                self._misused(rf"--create: .*{complaint}", f"--create={value}", new)

    def bad_budgets(self):
        for value in ("0", "1023K", "65G", "x", "8Q"):
            with self.subTest(value):
                self._misused(rf"--max-in-flight: '", f"--max-in-flight={value}", self.image(MIB))

    def bad_addresses(self):
        for value in ("", ":10809", "localhost:", "localhost:x", "localhost:65536", "localhost:-1", "[::1", "[::1]x",
                      "[]:1"):
            with self.subTest(value):
                self._misused(r"--listen: '", "--listen", value, self.image(MIB))

    def bad_socket_paths(self):
        for value in ("", "x" * 108):
            with self.subTest(value):
                self._misused(r"--unix: '.*' must be 1 to 107 bytes long", "--unix", value, self.image(MIB))

    def bad_names(self):
        image = self.image(MIB)
        self._misused("--name: longer than 4096 bytes", "--name", "x" * 4097, image)
        self._misused("--name: not valid UTF-8", "--name", b"\xff".decode(errors="surrogateescape"), image)
        self._misused("--description: longer than 4096 bytes", "--description", "x" * 4097, image)

    def the_longest_name_is_served(self):
        with self.serve(self.image(MIB), "--name", "x" * 4096) as server:
            self.assertEqual(server.connect(lambda handle: handle.set_export_name("x" * 4096)).get_size(), MIB)

    def bad_words(self):
        image = self.image(MIB)
        self._misused("--io: 'Direct' is neither direct nor buffered", "--io", "Direct", image)
        self._misused("--log-level: 'loud' is not one of debug, info", "--log-level", "loud", image)

    def options_that_do_not_go_together(self):
        self._misused("--preallocate: needs --create", "--preallocate", self.image(MIB))
        self._misused("--create: cannot be used with --read-only", "--create", "1M", "--read-only", self.folder / "new.img")

    # What people ask first

    def help_fits_on_a_screen(self):
        shown = self.run_tool(served.program, "--help").splitlines()
        self.assertTrue(24 <= len(shown) <= 40, f"{len(shown)} lines")
        self.assertLessEqual(max(map(len, shown)), 100)
        self.assertEqual(self.run_tool(served.program, "-h").splitlines(), shown)

    def help_names_every_option(self):
        shown = self.run_tool(served.program, "--help")
        for option in ("-l,--listen", "-u,--unix", "-n,--name", "-D,--description", "-r,--read-only", "--create",
                       "--preallocate", "--io", "--threads", "--max-connections", "--handshake-timeout",
                       "--max-in-flight", "--queue-depth", "--drain-timeout", "--log-level", "--version"):
            self.assertIn(option, shown)

    def the_version_is_one_line(self):
        self.assertRegex(self.run_tool(served.program, "--version"), r"\Aaionbd \d+\.\d+\.\d+\n\Z")


if __name__ == "__main__":
    served.main(StartErrors)
