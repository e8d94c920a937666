#!/usr/bin/python3
"""What rights a served process has left, and that it serves all the same."""
import ctypes
import os
import re
import signal
import stat
import sys
from pathlib import Path

import served
from raw_client import READ, RawClient
from served import MIB

NONE = "0000000000000000"
NOBODY = 65534

# Starts a program with some system calls forbidden, as a container's engine does: arguments are the error's number, the
# calls' numbers with commas, and the program.
FORBIDDING = """
import ctypes, os, struct, sys
error, numbers = int(sys.argv[1]), [int(each) for each in sys.argv[2].split(",")]
code = [struct.pack("HBBI", 0x20, 0, 0, 0)]  # the call's number
for number in numbers:
    code.append(struct.pack("HBBI", 0x15, 0, 1, number))
    code.append(struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | error))
code.append(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
memory = ctypes.create_string_buffer(b"".join(code))
program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(memory))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[3], sys.argv[3:])
"""


def forbidding(error, *calls):
    libc = ctypes.CDLL("libseccomp.so.2")
    numbers = [libc.seccomp_syscall_resolve_name(each.encode()) for each in calls]
    return [sys.executable, "-c", FORBIDDING, str(error), ",".join(map(str, numbers))]


class Sandbox(served.Facts):
    @staticmethod
    def _threads(pid):
        """For each thread of the process, its lines of status as a dictionary."""
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield dict(re.findall(r"^(\w+):[ \t]*(.*)$", (task / "status").read_text(), re.MULTILINE))

    @staticmethod
    def _children(pid):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _use(self, server):
        """Some of everything: files, threads of their own, memory, a client that comes and goes."""
        client = server.connect()
        client.pwrite(b"x" * 100, 333)
        self.assertEqual(client.pread(100, 333), b"x" * 100)
        self.assertEqual(len(client.pread(4 * MIB, 0)), 4 * MIB)
        client.zero(MIB, MIB)
        client.trim(MIB, 2 * MIB)
        client.flush()
        client.shutdown()

    def _missing(self, server):
        found = re.search(r"the sandbox is incomplete here, without: (.*)", server.log())
        return found.group(1) if found else ""

    # On, by default

    @served.loops
    def nothing_is_left_to_any_thread_of_a_served_process(self):
        with self.serve(self.sparse(8 * MIB), "--threads", 2) as server:
            clients = [server.connect() for _ in range(4)]
            self._use(server)
            threads = list(self._threads(server.pid))
            self.assertGreaterEqual(len(threads), 2 + 8)
            for status in threads:
                # ThreadSanitizer has a thread of its own, which was there before: the filter holds for it, too.
                self.assertEqual((status["Seccomp"], status["NoNewPrivs"]), ("2", "1"))
                if status["Pid"] == str(server.pid) or not served.is_sanitized():
                    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb") + (("CapBnd",) if os.geteuid() == 0 else ()):
                        self.assertEqual((kind, status[kind]), (kind, NONE))
            del clients

    def every_part_is_there_on_this_machine(self):
        # Landlock is a choice of the kernel's builder; the others every kernel has.
        with self.serve(self.sparse(8 * MIB)) as server:
            self.assertIn(re.sub(r" \(.*?\)", "", self._missing(server)), ("", "Landlock"))

    def the_file_keeper_can_do_little_as_well_and_holds_nothing_of_the_servers(self):
        with self.serve(self.sparse(8 * MIB)) as server:
            (child,) = self._children(server.pid)
            served.wait_until(lambda: next(self._threads(child))["Seccomp"] == "2", served.PATIENCE_S, "its filter")
            status = next(self._threads(child))
            self.assertEqual((status["Name"], status["NoNewPrivs"]), ("aionbd-files", "1"))
            if os.geteuid() == 0:
                self.assertEqual({status[kind] for kind in ("CapPrm", "CapEff", "CapBnd")}, {"000000000000000e"})
            links = [os.readlink(each) for each in Path(f"/proc/{child}/fd").iterdir()]
            self.assertEqual(len(links), 1)
            self.assertRegex(links[0], "^socket:")

    def a_server_that_needs_no_files_later_has_no_file_keeper(self):
        with self.serve(self.sparse(8 * MIB), tcp=True) as server:
            self.assertEqual(self._children(server.pid), [])

    def a_killed_servers_file_keeper_goes_with_it(self):
        with self.serve(self.sparse(8 * MIB)) as server:
            (child,) = self._children(server.pid)
            server.signal(signal.SIGKILL)
            server.wait()
            served.wait_until(lambda: not self._is_alive(child), served.PATIENCE_S, "the end of the file keeper")
            self.assertTrue(os.path.exists(server.socket_path))

    @staticmethod
    def _is_alive(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except FileNotFoundError:
            return False

    # Off, or not to be had

    def no_sandbox_leaves_everything_and_says_so(self):
        with self.serve(self.sparse(8 * MIB), "--no-sandbox") as server:
            for status in self._threads(server.pid):
                self.assertEqual((status["Seccomp"], status["NoNewPrivs"]), ("0", "0"))
            self.assertIn("warning: --no-sandbox: ", server.log())
            self.assertEqual(self._children(server.pid), [])
            self._use(server)
            path = server.socket_path
        self.assertFalse(os.path.exists(path))

    def where_filters_are_forbidden_the_rest_holds_and_the_log_says_so(self):
        with self.serve(self.sparse(8 * MIB), prefix=forbidding(1, "seccomp")) as server:
            self.assertRegex(self._missing(server), r"the system call filter \(")
            self.assertEqual(server.log().count("the sandbox is incomplete"), 1)
            for status in self._threads(server.pid):
                self.assertEqual(status["CapEff"], NONE)
            self._use(server)

    def a_kernel_without_landlock_is_no_error(self):
        if served.is_sanitized():
            return  # Such a build does not ask for it.
        with self.serve(self.sparse(8 * MIB), prefix=forbidding(38, "landlock_create_ruleset")) as server:
            self.assertEqual(self._missing(server), "Landlock (Function not implemented)")
            self.assertEqual({status["Seccomp"] for status in self._threads(server.pid)}, {"2"})
            self._use(server)

    def a_filter_that_a_container_has_set_is_kept_beside_ours(self):
        # 2 is ENOENT: no error of the server's own.
        with self.serve(self.sparse(8 * MIB), prefix=forbidding(2, "swapon")) as server:
            self.assertEqual({status["Seccomp_filters"] for status in self._threads(server.pid)}, {"2"})
            self._use(server)

    # Another user

    def root_becomes_another_user_with_files_that_only_root_may_open(self):
        self.need_root()
        for sandbox in ((), ("--no-sandbox",)):
            with self.subTest(sandbox=sandbox):
                image = self.sparse(8 * MIB, "of-root.img")
                image.chmod(0o600)
                self.sockets.chmod(0o700)
                with self.serve(image, "--user", str(NOBODY) + ":" + str(NOBODY), *sandbox) as server:
                    for status in self._threads(server.pid):
                        self.assertEqual(status["Uid"].split(), [str(NOBODY)] * 4)
                        self.assertEqual(status["Gid"].split(), [str(NOBODY)] * 4)
                        self.assertEqual((status["Groups"].strip(), status["CapEff"], status["CapPrm"]), ("", NONE, NONE))
                    path = server.socket_path
                    self.assertEqual(os.stat(path).st_uid, 0)
                    self._use(server)
                # In a folder that the user cannot even look into.
                self.assertFalse(os.path.exists(path))

    def a_file_that_is_created_before_the_switch_is_roots(self):
        self.need_root()
        image = self.folder / "new.img"
        with self.serve(image, "--create", "8M", "--user", "nobody") as server:
            self._use(server)
        self.assertEqual((image.stat().st_uid, stat.S_IMODE(image.stat().st_mode)), (0, 0o600))

    def a_second_signal_removes_the_socket_of_another_user(self):
        self.need_root()
        with self.serve(self.sparse(8 * MIB), "--user", "nobody", "--drain-timeout", 60) as server:
            path = server.socket_path
            client = RawClient.in_transmission(server)
            client.send(b"\x25\x60\x95\x13")  # half a request, so that the end waits for the rest
            other = RawClient.in_transmission(server)
            other.ask(READ, 1, length=1)
            server.signal(signal.SIGTERM)
            server.wait_for_log("finishing what is in flight")
            server.signal(signal.SIGTERM)
            server.wait()
            self.assertFalse(os.path.exists(path))
            client.close()
            other.close()

    def users_that_cannot_be_had_are_errors_and_nothing_is_created(self):
        new = self.folder / "new.img"
        for user, complaint in (("no-such-user", "there is no user 'no-such-user'"), ("", "'' should look like USER"),
                                ("root:no-such-group", "there is no group"), (":0", "':0' names no user")):
            with self.subTest(user):
                said = self.run_tool(served.program, "--user", user, "--create", "1M", new, status=1)
                self.assertRegex(said, rf"\Aaionbd: --user: .*{complaint}.*\n\Z")
        self.assertFalse(new.exists())

    def a_server_that_was_never_root_is_confined_as_well(self):
        self.need_root()
        self.need("setpriv")
        # Where anybody can go: the build tree may lie in somebody's home.
        self.sockets.chmod(0o777)
        original, before = served.program, os.umask(0)
        try:
            served.program = str(self.sockets / "aionbd")
            Path(served.program).write_bytes(Path(original).read_bytes())
            os.chmod(served.program, 0o755)
            image = self.sockets / "disk.img"
            with open(image, "wb") as opened:
                opened.truncate(8 * MIB)
            os.chown(image, NOBODY, NOBODY)
            demote = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            with self.serve(image, "--io", "buffered", prefix=demote) as server:
                for status in self._threads(server.pid):
                    self.assertEqual(status["Uid"].split(), [str(NOBODY)] * 4)
                    self.assertEqual((status["Seccomp"], status["NoNewPrivs"], status["CapEff"]), ("2", "1", NONE))
                self.assertIn(re.sub(r" \(.*?\)", "", self._missing(server)), ("", "Landlock"))
                self._use(server)
                path = server.socket_path
            self.assertFalse(os.path.exists(path))
        finally:
            served.program = original
            os.umask(before)

    def only_root_becomes_another_user(self):
        self.need_root()
        image = self.sparse(MIB)
        os.chown(image, NOBODY, NOBODY)
        for folder in (self.folder, self.sockets):
            os.chown(folder, NOBODY, NOBODY)
        demote = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        program = self.sockets / "aionbd"
        program.write_bytes(Path(served.program).read_bytes())
        program.chmod(0o755)
        said = self.run_tool(program, "--user", "root", "--unix", self.free_socket(), "/dev/null", status=1, **demote)
        self.assertEqual(said, "aionbd: --user: only root can become 'root'\n")


if __name__ == "__main__":
    served.main(Sandbox)
