#!/usr/bin/python3
"""The limits on what clients can use up, in the real program: at each limit, and one past it."""
import os
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import served
from greeted import GREETING, greeted
from raw_client import READ, RawClient
from served import MIB

REPOSITORY = Path(__file__).resolve().parents[2]

# Inside a network of its own: connects from each address given, and says who was greeted.
GREETED_INSIDE = """
import socket, sys
kept = []
for source in sys.argv[2:]:
    client = socket.socket(socket.AF_INET6)
    client.settimeout(30)
    client.bind((source, 0))
    client.connect((sys.argv[1], 10809))
    try:
        print("yes" if client.recv(8) == b"NBDMAGIC" else "no")
    except ConnectionResetError:
        print("no")
    kept.append(client)
"""

# Inside a network of its own: one client stays and goes on answering, the addresses of two others vanish, of one that
# was idle and of one that had not read its replies. When the server has let go of them, the first is served still.
DEAD_PEERS = """
import socket, struct, subprocess, sys
def enter(source):
    client = socket.socket()
    client.settimeout(60)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.bind((source, 0))
    client.connect(("127.0.0.1", 10809))
    client.recv(18, socket.MSG_WAITALL)
    client.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">IIIH", 7, 6, 0, 0))
    client.recv(20 + 12 + 20, socket.MSG_WAITALL)
    return client
def ask(client, length):
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, length))
def read(client):
    ask(client, 100)
    assert len(client.recv(116, socket.MSG_WAITALL)) == 116
alive, idle, owed = enter("127.0.0.1"), enter("192.0.2.9"), enter("192.0.2.10")
read(alive), read(idle), read(owed)
# More than all the buffers on the way can hold.
for _ in range(32):
    ask(owed, 1 << 20)
owed.recv(1)
for address in ("192.0.2.9/32", "192.0.2.10/32"):
    subprocess.run(["ip", "address", "del", address, "dev", "lo"], check=True)
print("gone", flush=True)
sys.stdin.readline()
read(alive)
print("alive", flush=True)
"""

# What no option changes: how SECURITY.md calls it, and which constant it is.
FIXED_LIMITS = {
    "Options of a handshake": ("protocol/handshake.hpp", "options_max"),
    "Data of one option that is looked at; an option with more is read to its end and refused":
        ("protocol/handshake.hpp", "option_length_max"),
    "Bytes of all options of a handshake": ("protocol/handshake.hpp", "total_bytes_max"),
    "Queries for metadata in one option": ("protocol/handshake.hpp", "context_queries_max"),
    "Export name": ("protocol/constants.hpp", "name_length_max"),
    "Encrypted bytes waiting in one connection, each way": ("server/receive_buffer.hpp", "capacity"),
    "TLS messages that are not data, once the client is known, beyond one for each 64 KiB of data":
        ("server/tls_stream.cpp", "unpaid_messages_max"),
    "Payload of one request": ("protocol/constants.hpp", "request_payload_max"),
    "Extents in one answer to BLOCK_STATUS": ("protocol/constants.hpp", "status_extents_max"),
    "How long a new session waits for the last requests of clients that have left":
        ("server/session.hpp", "patience_with_the_gone"),
}


def _amount(text):
    """The number behind '64', '64M', '16 KiB' or '10 s'."""
    number, unit = re.fullmatch(r"(\d+) ?(|K|M|KiB|MiB|s|bytes)", text).groups()
    return int(number) << {"K": 10, "M": 20}.get(unit[:1], 0)


def _constant(path, name):
    """The value with which a C++ file defines it."""
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    value = re.search(rf"(?m)^[^/\n]*\b{name}(?: = |(?=\{{))(.+?);", text).group(1)
    if re.fullmatch("[a-z_]+", value):
        return _constant(path, value)
    digits, shift = re.fullmatch(r"(?:std::size_t)?\{?(\d+)U?\}?(?: << (\d+)U?)?", value).groups()
    return int(digits) << int(shift or 0)


class Limits(served.Facts):
    # How many

    def clients_of_one_address_are_served_up_to_the_limit_and_those_of_another_as_well(self):
        with self.serve(self.image(MIB), "--max-per-address", 2, tcp=True) as server:
            present = [RawClient.in_transmission(server) for _ in range(2)]
            self.assertEqual(greeted(server.port, "127.0.0.1"), b"")
            server.wait_for_log(r"refused a client: 2 clients from 127\.0\.0\.1 are connected, the limit of --max-per-address")
            self.assertEqual(greeted(server.port, "127.0.0.2"), GREETING)
            present.pop().close()
            served.wait_until(lambda: greeted(server.port) == GREETING, served.PATIENCE_S, "being let in")
            self.assertEqual(present[0].ask(READ, 1, length=1)[1], 0)
            present[0].close()

    def the_clients_of_one_user_of_a_unix_socket_are_limited_as_well(self):
        with self.serve(self.image(MIB), "--max-per-address", 2) as server:
            present = [RawClient.in_transmission(server) for _ in range(2)]
            with RawClient(server, flags=None) as refused:
                self.assertEqual(refused.receive_rest(), b"")
            server.wait_for_log(rf"2 clients from user {os.getuid()} are connected")
            for each in present:
                each.close()

    def by_default_32_of_one_address_are_served_and_no_33rd(self):
        with self.serve(self.image(MIB), tcp=True) as server:
            present = [RawClient(server) for _ in range(32)]
            self.assertEqual(greeted(server.port), b"")
            self.assertEqual(greeted(server.port, "127.0.0.2"), GREETING)
            for each in present:
                each.close()

    def of_ipv6_clients_the_network_of_64_bits_counts_as_one(self):
        self.need_root()
        self.need("unshare", "nsenter", "ip")
        first, same, other = "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"
        prepare = "ip link set lo up" + "".join(
            f" && ip address add {each}/128 dev lo nodad" for each in (first, same, other))
        with served.Server(self.sockets, ["--max-per-address", 2, "-l", f"[{first}]:10809", self.image(MIB)],
                           prefix=self._own_network(prepare)) as server:
            said = self._run_inside(server, GREETED_INSIDE, first, first, same, first, same, other)
            self.assertEqual(said.split(), ["yes", "yes", "no", "no", "yes"])
            server.wait_for_log(r"2 clients from 2001:db8:0:1::/64 are connected, the limit of --max-per-address")

    def _own_network(self, prepare):
        return ["unshare", "--net", "sh", "-c", f'{prepare}; exec "$@"', "sh"]

    def _run_inside(self, server, code, *arguments):
        return self.run_tool("nsenter", f"--net=/proc/{server.pid}/ns/net", sys.executable, "-c", code, *arguments)

    # How long

    def peers_that_have_died_are_given_up_and_one_that_is_silent_is_not(self):
        self.need_root()
        self.need("unshare", "nsenter", "ip")
        prepare = "ip link set lo up && ip address add 192.0.2.9/32 dev lo && ip address add 192.0.2.10/32 dev lo"
        with served.Server(self.sockets, ["--dead-peer-timeout", 5, "-l", "127.0.0.1:10809", self.image(MIB)],
                           prefix=self._own_network(prepare)) as server:
            clients = subprocess.Popen(
                ["nsenter", f"--net=/proc/{server.pid}/ns/net", sys.executable, "-c", DEAD_PEERS],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.assertEqual(clients.stdout.readline(), "gone\n")
            # Keepalive asks the one that is idle; of the one that is owed replies, they tell themselves.
            for dead in (r"192\.0\.2\.9", r"192\.0\.2\.10"):
                server.wait_for_log(rf"{dead}:\d+: connection ended: ", patience_s=60)
            # The third has said nothing for as long.
            self.assertEqual(server.log().count("connection ended: "), 2)
            self.assertEqual(clients.communicate("\n", timeout=served.PATIENCE_S)[0], "alive\n")

    # When the system has no more

    def a_server_without_descriptors_waits_for_some_without_spinning(self):
        if served.is_sanitized():
            self.skipTest("sanitizers need descriptors themselves")
        with self.serve(self.image(MIB), tcp=True) as server:
            present = RawClient.in_transmission(server)
            soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (0, hard))
            waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
            server.wait_for_log("cannot accept on .*: Too many open files; trying again in a moment")
            before = self._processor_time(server)
            time.sleep(1.5)
            # A server that spins has used all of it.
            self.assertLess(self._processor_time(server) - before, 0.75)
            self.assertEqual(present.ask(READ, 1, length=1)[1], 0)
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
            for each in waiting:
                each.settimeout(served.PATIENCE_S)
                self.assertEqual(each.recv(8), GREETING)
                each.close()
            self.assertLess(server.log().count("Too many open files"), 20)
            present.close()

    @staticmethod
    def _processor_time(server):
        fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def no_error_of_accept_ends_the_server_or_has_it_try_again_at_once(self):
        self.need("strace")
        trace = self.folder / "trace"
        for error in ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EPROTO", "EPERM", "ENETDOWN"):
            with self.subTest(error):
                inject = f"inject=accept,accept4:error={error}:when=1..4"
                with self.serve(self.image(MIB), environment={"ASAN_OPTIONS": "detect_leaks=0"}, tcp=True,
                                prefix=["strace", "-f", "-ttt", "-o", trace, "-e", "trace=accept,accept4", "-e",
                                        inject]) as server:
                    self.assertEqual(greeted(server.port), GREETING)
                    said = server.log().count("cannot accept on")
                    self.assertEqual(said, 0 if error == "ECONNABORTED" else 1, server.log())
                calls = re.findall(r"(?m)^\d+ +(\d+\.\d+) accept4?\((.*)$", trace.read_text(encoding="utf-8"))
                self.assertEqual(["INJECTED" in rest for _, rest in calls[:5]], 4 * [True] + [False], calls)
                if error != "ECONNABORTED":  # that was of one client, and the next may be another
                    times = [float(when) for when, _ in calls]
                    # A tenth of a second, but for the clock's own steps.
                    self.assertGreater(min(later - earlier for earlier, later in zip(times[:4], times[1:5])), 0.09, calls)

    # What is written about them

    def the_security_page_names_every_limit_with_its_default(self):
        shown = self.run_tool(served.program, "--help")
        options = re.findall(r"(--max-[a-z-]+|--[a-z-]+-timeout|--queue-depth) .*?\((\w+)\)", shown, re.DOTALL)
        self.assertEqual(len(options), 7, options)
        wanted = {option: _amount(default) for option, default in options}
        wanted.update({what: _constant(*where) for what, where in FIXED_LIMITS.items()})
        page = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
        section = page.partition("\n## Limits\n")[2].partition("\n## ")[0]
        rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")][1:]
        found = {option.strip(" `") or what.strip(): _amount(default.strip()) for what, default, option in rows}
        self.assertEqual(found, wanted)
        price = _constant("server/tls_stream.cpp", "price_of_message")
        self.assertIn(f"beyond one for each {price >> 10} KiB of data |", section)


if __name__ == "__main__":
    served.main(Limits)
