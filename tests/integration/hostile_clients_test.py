#!/usr/bin/python3
"""A client's nonsense, silence or sudden death ends that client and nobody else's session."""
import contextlib
import os
import random
import re
import signal
import socket
import struct
import subprocess
import time

import served
from raw_client import EINVAL, ENOSPC, LIST, NO_ZEROES, FIXED_NEWSTYLE, READ, WRITE, RawClient, go, option, request, write
from raw_client import FLUSH
from served import KIB, MIB


class HostileClients(served.Facts):
    @contextlib.contextmanager
    def _served_while_another_works(self, *options, tcp=False):
        """A server with a well-behaved client, whom the test's bad ones must not disturb."""
        with self.serve(self.image(4 * MIB), *options, tcp=tcp) as server:
            neighbour = server.connect()
            neighbour.pwrite(b"before", 7)
            yield server
            self.assertEqual(neighbour.pread(6, 7), b"before")
            neighbour.pwrite(b"after", 7)
            neighbour.flush()
            neighbour.shutdown()
            self.assertEqual(server.connect().pread(5, 7), b"after")

    def _expect_end(self, client):
        """The server closes; a reset is a close, too."""
        client.receive_rest()
        client.close()

    # Garbage

    def garbage_in_place_of_client_flags_ends_the_connection(self):
        with self._served_while_another_works() as server:
            for flags in (4, 1 << 31, 0xFFFFFFFF):
                client = RawClient(server, flags=flags)
                self.assertEqual(client.receive_rest(), b"")
                client.close()

    def garbage_in_the_handshake_ends_the_connection(self):
        rng = random.Random(1)
        with self._served_while_another_works() as server:
            for length in (8, 16, 17, 100, 5000, 100000):
                client = RawClient(server)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(rng.randbytes(length))
                    client.socket.shutdown(socket.SHUT_WR)
                self._expect_end(client)

    def an_option_of_4_gib_ends_the_connection(self):
        with self._served_while_another_works() as server:
            client = RawClient(server)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(b"IHAVEOPT" + struct.pack(">II", LIST, 0xFFFFFFFF) + bytes(100000))
            self._expect_end(client)

    def endless_options_end_the_connection(self):
        with self._served_while_another_works() as server:
            client = RawClient(server)
            client.socket.settimeout(served.PATIENCE_S)
            with self.assertRaises((EOFError, BrokenPipeError, ConnectionResetError)):
                for _ in range(2000):
                    client.send(option(LIST))
                    client.option_reply()
                    client.option_reply()
            client.close()

    def garbage_in_transmission_ends_the_connection(self):
        rng = random.Random(2)
        with self._served_while_another_works() as server:
            for length in (28, 29, 1000, 300000):
                client = RawClient.in_transmission(server)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(rng.randbytes(length))
                self._expect_end(client)
            server.wait_for_log("connection ended: ", count=4)

    def garbage_behind_a_good_request_does_not_undo_it(self):
        with self._served_while_another_works() as server:
            client = RawClient.in_transmission(server)
            client.send(write(b"good", cookie=3, offset=MIB) + b"\xff" * 28)
            self.assertIn(struct.pack(">IIQ", 0x67446698, 0, 3), client.receive_rest())
            client.close()
            self.assertEqual(server.connect().pread(4, MIB), b"good")

    def random_requests_with_good_magic_are_survived(self):
        rng = random.Random(3)
        with self._served_while_another_works() as server:
            for _ in range(60):
                client = RawClient.in_transmission(server)
                # Not into the neighbour's bytes: everything lies past the first MiB, or past the end.
                requests = b"".join(
                    struct.pack(">IHHQQI", 0x25609513, rng.choice([0, 1, 2, 16, rng.getrandbits(16)]), rng.randint(0, 9),
                                rng.getrandbits(64), rng.choice([MIB, 3 * MIB, rng.getrandbits(64) | 1 << 62]),
                                rng.choice([0, 1, 511, 65536, rng.getrandbits(32)])) for _ in range(8))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(requests)
                    client.socket.shutdown(socket.SHUT_WR)
                self._expect_end(client)

    # Payloads that are too long

    def a_write_longer_than_32_mib_is_drained_and_refused(self):
        with self.serve(self.sparse(128 * MIB)) as server:
            client = RawClient.in_transmission(server)
            client.send(write(b"before", offset=7))
            client.reply()
            for length in (32 * MIB + 1, 64 * MIB):
                client.send(request(WRITE, cookie=1, offset=MIB, length=length, payload=b"\xee" * length))
                self.assertEqual(client.reply(), (1, EINVAL, b""))
            self.assertEqual(client.ask(READ, 4, offset=7, length=4), (0, 0, b"befo"))
            self.assertEqual(client.ask(READ, 8, offset=MIB, length=8)[2], bytes(8))
            client.close()

    def a_write_longer_than_64_mib_ends_the_connection(self):
        with self._served_while_another_works() as server:
            client = RawClient.in_transmission(server)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(request(WRITE, length=64 * MIB + 1, payload=bytes(MIB)))
            self._expect_end(client)

    def a_write_past_the_end_is_drained_and_refused(self):
        with self._served_while_another_works() as server:
            client = RawClient.in_transmission(server)
            client.send(write(bytes(100000), cookie=1, offset=4 * MIB - 1) + write(b"ok", cookie=2, offset=MIB))
            self.assertEqual(client.reply(), (1, ENOSPC, b""))
            self.assertEqual(client.reply(), (2, 0, b""))
            client.close()

    # Sudden ends

    def a_conversation_cut_at_every_byte_is_survived(self):
        conversation = (struct.pack(">I", FIXED_NEWSTYLE | NO_ZEROES) + option(LIST) + go() +
                        write(b"x" * 40, offset=MIB) + request(READ, offset=MIB, length=5000) + request(FLUSH))
        with self._served_while_another_works() as server:
            for end in range(len(conversation)):
                client = RawClient(server, flags=None)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(conversation[:end])
                client.close()

    def clients_that_vanish_with_requests_in_flight_are_survived(self):
        requests = b"".join(write(b"y" * (128 * KIB), cookie=i, offset=MIB + i * 1000) +
                            request(READ, cookie=i, offset=MIB, length=256 * KIB) for i in range(16))
        for tcp in (False, True):
            with self.subTest(tcp=tcp), self._served_while_another_works(tcp=tcp) as server:
                for _ in range(15):
                    client = RawClient.in_transmission(server)
                    # Closed at once, with a reset where the transport has one.
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        client.send(requests)
                    client.close()

    def a_client_process_killed_with_io_in_flight_is_survived(self):
        self.need("fio")
        with self._served_while_another_works() as server:
            for _ in range(3):
                # Reads only: writes would change the neighbour's bytes.
                client = subprocess.Popen(
                    ["fio", "--name=job", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randread", "--bsrange=1k-256k",
                     "--size=4m", "--iodepth=64", "--time_based", "--runtime=60"], cwd=self.folder,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
                known = server.log().count("serving export")
                server.wait_for_log("serving export", count=known + 2)
                time.sleep(0.2)
                os.killpg(client.pid, signal.SIGKILL)
                client.wait()

    # Silence and crowds

    def clients_that_break_off_fill_no_log(self):
        with self._served_while_another_works("--max-per-address", 64) as server:
            began = time.monotonic()
            for _ in range(300):
                client = RawClient(server)
                client.send(b"nonsense" * 2)
                client.receive_rest()
                client.close()
            seconds = time.monotonic() - began
            lines = server.log().count(", closing")
            self.assertLess(lines, 300)
            self.assertLessEqual(lines, 10 * (seconds + 2))
            time.sleep(1.1)
            client = RawClient(server)
            client.send(b"nonsense" * 2)
            client.receive_rest()
            client.close()
            server.wait_for_log(", closing", count=lines + 1)
            counted = sum(int(number) for number in re.findall(r"\((\d+) more like it since the last line\)", server.log()))
            self.assertEqual(lines + 1 + counted, 301)

    def a_silent_client_is_closed_after_the_handshake_timeout(self):
        with self._served_while_another_works("--handshake-timeout", 1) as server:
            silent, slow = RawClient(server, flags=None), RawClient(server)
            began = time.monotonic()
            slow.send(b"IHAV")
            self.assertEqual(silent.receive_rest()[:8], b"NBDMAGIC")
            self.assertEqual(slow.receive_rest(), b"")
            self.assertTrue(0.5 < time.monotonic() - began < 10)
            server.wait_for_log("no handshake within 1 s", count=2)
            # The neighbour has been connected for as long, and is past its handshake.

    def a_client_that_sends_a_byte_now_and_then_is_closed_as_well(self):
        with self._served_while_another_works("--handshake-timeout", 1) as server:
            client = RawClient(server)
            deadline = time.monotonic() + 10
            with self.assertRaises((BrokenPipeError, ConnectionResetError)):
                while time.monotonic() < deadline:
                    for byte in option(LIST):
                        client.send(bytes([byte]))
                        time.sleep(0.05)
            client.close()

    def the_client_too_many_is_refused_until_another_leaves(self):
        with self.serve(self.image(MIB), "--max-connections", 3) as server:
            present = [RawClient.in_transmission(server), RawClient(server), server.connect()]
            for _ in range(5):
                refused = RawClient(server, flags=None)
                self.assertEqual(refused.receive_rest(), b"")
                refused.close()
            server.wait_for_log("refused a client: 3 clients are connected")
            for leave in (present[0].close, present[1].close, present[2].shutdown):
                leave()
            served.wait_until(lambda: self._is_let_in(server), served.PATIENCE_S, "being let in")
            again = [server.connect() for _ in range(2)]
            self.assertEqual(again[0].pread(1, 0), again[1].pread(1, 0))

    @staticmethod
    def _is_let_in(server):
        with RawClient(server, flags=None) as client:
            try:
                return client.receive(8) == b"NBDMAGIC"
            except (EOFError, ConnectionResetError):
                return False

    def defect_a_connection_limit_counts_down_however_a_crowd_comes_and_goes(self):
        with self.serve(self.image(MIB), "--max-connections", 4) as server:
            for _ in range(300):
                RawClient(server, flags=None).close()
            served.wait_until(lambda: self._is_let_in(server), served.PATIENCE_S, "being let in")
            clients = []
            for _ in range(4):
                served.wait_until(lambda: self._is_let_in(server), served.PATIENCE_S, "being let in")
                time.sleep(0.05)
                clients.append(RawClient.in_transmission(server))
            self.assertFalse(self._is_let_in(server))
            for client in clients:
                client.close()


if __name__ == "__main__":
    served.main(HostileClients)
