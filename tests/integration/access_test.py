#!/usr/bin/python3
"""Who is let in: networks for TCP, permissions and owners for Unix sockets."""
import os
import socket
import stat
import subprocess
import sys

import served
from greeted import GREETING, greeted
from served import MIB


class Access(served.Facts):
    # Networks

    def who_is_in_the_network_is_served_and_others_do_not_get_a_byte(self):
        with self.serve(self.image(MIB), "--allow", "127.0.0.2", tcp=True) as server:
            self.assertEqual(greeted(server.port, "127.0.0.2"), GREETING)
            for other in ("127.0.0.1", "127.0.0.3", "127.0.0.20", "127.0.0.200"):
                self.assertEqual((other, greeted(server.port, other)), (other, b""))
            server.wait_for_log(r"refused a client: 127\.0\.0\.\d+ is in none of the --allow networks")
            self.assertEqual(greeted(server.port, "127.0.0.2"), GREETING)

    def each_of_several_networks_is_let_in(self):
        with self.serve(self.image(MIB), "--allow", "127.0.1.0/24", "--allow", "127.0.3.0/24", tcp=True) as server:
            for source, expected in (("127.0.1.1", GREETING), ("127.0.2.1", b""), ("127.0.3.1", GREETING),
                                     ("127.0.0.1", b"")):
                self.assertEqual((source, greeted(server.port, source)), (source, expected))

    def an_ipv4_client_of_a_socket_for_both_is_an_ipv4_client(self):
        for allowed, expected in (("127.0.0.1", GREETING), ("::ffff:127.0.0.0/104", GREETING), ("::/0", b""),
                                  ("127.0.0.2", b"")):
            with self.subTest(allowed), socket.socket(socket.AF_INET6) as both:
                both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                try:
                    both.bind(("::", 0))
                except OSError:
                    self.skipTest("no IPv6 here")
                both.listen()
                handed_over = ["bash", "-c", 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&100', "bash"]
                os.dup2(both.fileno(), 100)
                with served.Server(self.sockets, ["--allow", allowed, self.image(MIB)], prefix=handed_over,
                                   pass_fds=[100]):
                    self.assertEqual(greeted(both.getsockname()[1]), expected)

    def an_ipv6_network_lets_its_clients_in_and_no_others(self):
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            self.skipTest("no IPv6 here")
        for allowed, expected in (("::1", GREETING), ("::/127", GREETING), ("::2/127", b""), ("0.0.0.0/0", b"")):
            with self.subTest(allowed):
                with served.Server(self.sockets, ["-l", "[::1]:0", "--allow", allowed, self.image(MIB)]) as server:
                    port = int(server.log().rpartition("listening on [::1]:")[2].split()[0])
                    self.assertEqual(greeted(port, "::1", "::1"), expected)

    def unix_clients_are_not_subject_to_networks(self):
        with self.serve(self.image(MIB), "--allow", "192.0.2.1") as server:
            self.assertEqual(server.connect().get_size(), MIB)

    def who_is_refused_takes_nobodys_place(self):
        with self.serve(self.image(MIB), "--allow", "127.0.0.1", "--max-connections", 1, tcp=True) as server:
            for _ in range(20):
                self.assertEqual(greeted(server.port, "127.0.0.2"), b"")
            self.assertEqual(server.connect().get_size(), MIB)

    def of_many_refusals_the_log_says_little(self):
        with self.serve(self.image(MIB), "--allow", "127.0.0.1", tcp=True) as server:
            for _ in range(300):
                self.assertEqual(greeted(server.port, "127.0.0.2"), b"")
            lines = server.log().count("refused a client")
            self.assertTrue(1 <= lines < 100, lines)

    # Unix sockets

    def _connects_as(self, server, user, group):
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({server.socket_path!r})"
        done = subprocess.run([sys.executable, "-c", code], user=user, group=group, extra_groups=[], cwd="/",
                              stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            self.assertIn("PermissionError", done.stderr)
        return done.returncode == 0

    def a_unix_socket_is_for_whom_it_was_given_to(self):
        self.need_root()
        self.sockets.chmod(0o755)
        with self.serve(self.image(MIB), "--unix-owner", "12345:54321") as server:
            facts = os.stat(server.socket_path)
            self.assertEqual((facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)), (12345, 54321, 0o600))
            self.assertTrue(self._connects_as(server, 12345, 1))
            self.assertFalse(self._connects_as(server, 1, 54321))
            path = server.socket_path
        self.assertFalse(os.path.exists(path))

    def a_unix_socket_is_for_its_group_when_the_mode_says_so(self):
        self.need_root()
        self.sockets.chmod(0o755)
        with self.serve(self.image(MIB), "--unix-owner", ":54321", "--unix-mode", "0660") as server:
            self.assertTrue(self._connects_as(server, 1, 54321))
            self.assertFalse(self._connects_as(server, 1, 1))

    def a_unix_socket_is_for_all_when_the_mode_says_so(self):
        self.need_root()
        self.sockets.chmod(0o755)
        with self.serve(self.image(MIB), "--unix-mode", "666") as server:
            self.assertTrue(self._connects_as(server, 12345, 54321))

    def an_owner_nobody_knows_is_an_error_and_makes_no_socket(self):
        path = self.free_socket()
        said = self.run_tool(served.program, "--unix", path, "--unix-owner", "no-such-user", self.image(MIB), status=1)
        self.assertEqual(said, "aionbd: --unix-owner: there is no user 'no-such-user'\n")
        self.assertFalse(os.path.exists(path))


if __name__ == "__main__":
    served.main(Access)
