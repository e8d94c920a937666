#!/usr/bin/python3
"""Where the server listens, and how it works with a supervisor."""
import os
import re
import signal
import socket
import stat
from pathlib import Path

import nbd
import served
from served import MIB


class Listening(served.Facts):
    def _listeners(self, server):
        return re.findall(r"listening on (.*)", server.log())

    def _size_at(self, uri):
        handle = nbd.NBD()
        handle.connect_uri(uri)
        size = handle.get_size()
        handle.shutdown()
        return size

    def _start(self, *arguments, **how):
        return served.Server(self.sockets, arguments, **how)

    # TCP

    def port_0_picks_one_and_prints_it(self):
        with self._start("--listen", "127.0.0.1:0", self.image(MIB)) as server:
            self.assertEqual(len(self._listeners(server)), 1)
            self.assertGreater(server.port, 0)
            self.assertEqual(self._size_at(f"nbd://127.0.0.1:{server.port}"), MIB)

    def several_addresses_are_all_served(self):
        paths = [self.free_socket(), self.free_socket()]
        with self._start("-l", "127.0.0.1:0", "-l", "127.0.0.1:0", "-u", paths[0], "-u", paths[1],
                         self.image(MIB)) as server:
            ports = [re.search(r":(\d+)$", each).group(1) for each in self._listeners(server)[:2]]
            self.assertEqual(len({*ports}), 2)
            for uri in [f"nbd://127.0.0.1:{port}" for port in ports] + [f"nbd+unix:///?socket={path}" for path in paths]:
                self.assertEqual(self._size_at(uri), MIB)

    def an_ipv6_address_is_served(self):
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            self.skipTest("no IPv6 here")
        with self._start("--listen", "[::1]:0", self.image(MIB)) as server:
            port = re.search(r"listening on \[::1\]:(\d+)", server.log()).group(1)
            self.assertEqual(self._size_at(f"nbd://[::1]:{port}"), MIB)

    def the_default_is_port_10809_of_this_machine_only(self):
        with self._start(self.image(MIB), prefix=self._own_network("ip link set lo up")) as server:
            listeners = self._listeners(server)
            self.assertEqual(listeners[0], "127.0.0.1:10809")
            self.assertLessEqual({*listeners}, {"127.0.0.1:10809", "[::1]:10809"})
            self.assertEqual(self._size_inside(server, "nbd://localhost"), MIB)

    def a_machine_without_ipv6_is_no_error(self):
        without = "ip link set lo up; echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6"
        with self._start(self.image(MIB), prefix=self._own_network(without)) as server:
            self.assertEqual(self._listeners(server), ["127.0.0.1:10809"])
            self.assertEqual(self._size_inside(server, "nbd://127.0.0.1"), MIB)

    def _own_network(self, prepare):
        self.need_root()
        self.need("unshare", "nsenter", "ip")
        return ["unshare", "--net", "sh", "-c", f'{prepare}; exec "$@"', "sh"]

    def _size_inside(self, server, uri):
        return int(self.run_tool("nsenter", f"--net=/proc/{server.pid}/ns/net", "nbdinfo", "--size", uri))

    def a_restart_takes_the_port_of_connections_just_closed(self):
        image = self.image(MIB)
        with self._start("--listen", "127.0.0.1:0", image) as server:
            port = server.port
            client = socket.create_connection(("127.0.0.1", port))
            client.recv(18)
        with self._start("--listen", f"127.0.0.1:{port}", image):
            client.close()

    def cve_2013_6410_an_address_that_begins_like_ours_is_another_one(self):
        with self._start("--listen", "127.0.0.1:0", self.image(MIB)) as server:
            for other in ("127.0.0.10", "127.0.0.11", "127.0.0.100"):
                with self.assertRaises(ConnectionRefusedError):
                    socket.create_connection((other, server.port)).close()
            self.assertEqual(self._size_at(server.uri), MIB)

    # Unix sockets

    def a_unix_socket_alone_opens_no_tcp_port(self):
        with self.serve(self.image(MIB)) as server:
            self.assertEqual(len(self._listeners(server)), 1)
            mine = {os.readlink(entry) for entry in Path(f"/proc/{server.pid}/fd").iterdir()}
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{server.pid}/net/{table}").read_text().splitlines()[1:]:
                    self.assertNotIn(f"socket:[{line.split()[9]}]", mine)

    def a_unix_socket_is_for_its_owner_only(self):
        with self.serve(self.image(MIB)) as server:
            self.assertEqual(stat.S_IMODE(os.stat(server.socket_path).st_mode), 0o600)

    def a_unix_socket_is_removed_at_exit(self):
        with self.serve(self.image(MIB)) as server:
            path = server.socket_path
            self.assertTrue(os.path.exists(path))
        self.assertFalse(os.path.exists(path))

    def a_stale_socket_file_is_replaced(self):
        path = self.free_socket()
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(path)
        with self._start("--unix", path, self.image(MIB)):
            self.assertEqual(self._size_at(f"nbd+unix:///?socket={path}"), MIB)

    def a_socket_left_by_a_killed_server_is_replaced(self):
        path = self.free_socket()
        image = self.image(MIB)
        with self._start("--unix", path, image) as killed:
            killed.signal(signal.SIGKILL)
            killed.wait()
        self.assertTrue(os.path.exists(path))
        with self._start("--unix", path, image):
            self.assertEqual(self._size_at(f"nbd+unix:///?socket={path}"), MIB)

    def a_live_socket_is_an_error_and_stays_alive(self):
        with self.serve(self.image(MIB)) as server:
            said = self.run_tool(served.program, "--unix", server.socket_path, self.image(MIB, "other.img"), status=1)
            self.assertRegex(said, r"\Aaionbd: --unix: another server listens on .*choose another path\n\Z")
            self.assertEqual(self._size_at(server.uri), MIB)

    def the_socket_of_a_server_that_hangs_is_no_stale_one(self):
        with self.serve(self.image(MIB)) as server:
            server.signal(signal.SIGSTOP)
            try:
                said = self.run_tool(served.program, "--unix", server.socket_path, self.image(MIB, "other.img"), status=1)
            finally:
                server.signal(signal.SIGCONT)
            self.assertIn("another server listens on", said)
            self.assertEqual(self._size_at(server.uri), MIB)

    def a_file_that_is_no_socket_is_left_alone(self):
        other = self.image(b"precious", "precious")
        said = self.run_tool(served.program, "--unix", other, self.image(MIB), status=1)
        self.assertRegex(said, r"\Aaionbd: --unix: .*precious exists and is not a socket; it is left alone\n\Z")
        self.assertEqual(other.read_bytes(), b"precious")

    def a_failed_start_leaves_no_socket_behind(self):
        path = self.free_socket()
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            self.run_tool(served.program, "--unix", path, "--unix", "/nowhere/socket", self.image(MIB), status=1)
        self.assertFalse(os.path.exists(path))

    # A supervisor

    @staticmethod
    def _activation(*listening):
        """A launcher that hands these sockets over as systemd does: from descriptor 3 on."""
        moves = " ".join(f"{3 + i}<&{100 + i}" for i in range(len(listening)))
        return {"prefix": ["bash", "-c", f'export LISTEN_PID=$$ LISTEN_FDS={len(listening)}; exec "$@" {moves}', "bash"],
                "pass_fds": [os.dup2(each.fileno(), 100 + i) for i, each in enumerate(listening)]}

    def sockets_handed_over_by_systemd_are_served(self):
        path = self.free_socket()
        with socket.socket(socket.AF_UNIX) as first, socket.create_server(("127.0.0.1", 0)) as second:
            first.bind(path)
            first.listen()
            with self._start(self.image(MIB), **self._activation(first, second)) as server:
                port = second.getsockname()[1]
                self.assertEqual(self._listeners(server), [f"unix:{path}", f"127.0.0.1:{port}"])
                self.assertEqual(self._size_at(f"nbd+unix:///?socket={path}"), MIB)
                self.assertEqual(self._size_at(f"nbd://127.0.0.1:{port}"), MIB)
        self.assertTrue(os.path.exists(path), "the supervisor's socket file is the supervisor's")

    def clients_that_came_before_the_server_are_served(self):
        path = self.free_socket()
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as early:
            listening.bind(path)
            listening.listen()
            early.connect(path)
            with self._start(self.image(MIB), **self._activation(listening)):
                early.settimeout(served.PATIENCE_S)
                self.assertEqual(early.recv(8), b"NBDMAGIC")

    def a_descriptor_that_does_not_listen_is_an_error(self):
        with open("/dev/null", encoding="ascii") as null:
            how = self._activation(null)
            said = self.run_tool(*how["prefix"], served.program, self.image(MIB), status=1, pass_fds=how["pass_fds"])
        self.assertIn("LISTEN_FDS: file descriptor 3 is not a listening stream socket", said)

    def sockets_meant_for_another_process_are_not_taken(self):
        path = self.free_socket()
        with self._start("--unix", path, self.image(MIB),
                         environment={"LISTEN_PID": "1", "LISTEN_FDS": "1"}) as server:
            self.assertEqual(self._listeners(server), [f"unix:{path}"])

    def readiness_and_the_end_are_notified(self):
        with self.serve(self.image(MIB)) as server:  # has waited for READY=1
            server.signal(signal.SIGTERM)
            server.wait_for_notice("STOPPING=1")
            server.expect_end(0)

    def ready_means_that_clients_are_accepted(self):
        for _ in range(5):
            with self.serve(self.image(MIB)) as server:
                self.assertEqual(self._size_at(server.uri), MIB)


if __name__ == "__main__":
    served.main(Listening)
