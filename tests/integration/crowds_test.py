#!/usr/bin/python3
"""Crowds of clients that mean no good: a good client is served meanwhile, and afterwards the server has as many
descriptors and as much memory as before."""
import contextlib
import random
import socket
import struct
import time
from pathlib import Path

import served
from crowd import Crowd, GoodClient, allow_descriptors, gone_is_fine
from extended_client import BLOCK_STATUS, EXTENDED_HEADERS, SET_META_CONTEXT, STRUCTURED_REPLY, meta_context
from raw_client import (FIXED_NEWSTYLE, FLUSH, INFO, LIST, NO_ZEROES, READ, TRIM, WRITE, WRITE_ZEROES, RawClient, go,
                        option, request)
from served import KIB, MIB

SILENT = 10_000
CUT = 1_000
SLOW = 500
DEFAULT_LIMIT = 64
STALLED = 60
KEPT = 16 * MIB  # The heap's loose ends, which the next clients will use.
POOL = 128 * MIB  # The buffers that a loop keeps for the next requests; see the README.
RECORD = 5 * KIB  # The reactor keeps its record of a descriptor for the next one, and with it the page where that lies.
EACH = 16 * KIB  # What the server may spend on a client that it knows nothing of.


class Crowds(served.Facts):
    @contextlib.contextmanager
    def _served_while_another_works(self, *options, tcp, kept=KEPT, **how):
        """(server, good client). When the test's own clients have gone, the server must be as it was before them."""
        self._image = self.image(8 * MIB)
        # All come from one place here.
        with self.serve(self._image, "--max-per-address", 2 * SILENT, *options, tcp=tcp, **how) as server:
            with GoodClient(server) as good:
                before = server.descriptors(), server.status("VmRSS")
                yield server, good
                good.expect_progress()
                self._expect_as_before(server, *before, kept)
            self.assertEqual(len(server.connect().pread(4096, 0)), 4096)

    def _expect_as_before(self, server, descriptors, memory, kept):
        served.wait_until(lambda: server.descriptors() == descriptors, served.PATIENCE_S,
                          lambda: f"{descriptors} descriptors; the server has {server.descriptors()}")
        if not served.is_sanitized():  # A sanitizer keeps what was freed, to notice when it is used.
            served.wait_until(lambda: server.status("VmRSS") <= memory + kept, served.PATIENCE_S,
                              lambda: f"at most {memory + kept} bytes; the server has {server.status('VmRSS')}")
        print(f"memory: {memory >> 10} KiB before, {server.status('VmRSS') >> 10} KiB after")

    def _need_descriptors(self, count):
        if not allow_descriptors(count):
            self.skipTest(f"a process may not open {count} files here (ulimit -n)")

    # 10,000 that say nothing

    def ten_thousand_silent_clients_at_the_default_limit_over_tcp(self):
        self._silent_at_the_default_limit(tcp=True)

    def ten_thousand_silent_clients_at_the_default_limit_over_unix(self):
        self._silent_at_the_default_limit(tcp=False)

    def _silent_at_the_default_limit(self, tcp):
        with self._served_while_another_works("--handshake-timeout", 1, tcp=tcp) as (server, good), \
                Crowd(server) as crowd:
            for _ in range(10):
                crowd.connect(SILENT // 10)
                good.expect_progress()
            # Nobody stays: most were refused, and those who were let in are closed at the handshake's deadline.
            crowd.wait_until(lambda: len(crowd) == 0, "the server to close all of them")
            self.assertGreater(crowd.refused, SILENT // 2)

    def rule_38_cve_2019_14850_a_client_that_chose_no_export_costs_a_socket_and_opens_nothing(self):
        with self._served_while_another_works("--max-connections", 1000, tcp=False) as (server, _), \
                Crowd(server) as crowd:
            opened = server.descriptors(), server.descriptors_of(self._image), server.aio_queues()
            self.assertGreater(opened[2], 0)
            crowd.connect(900)
            crowd.wait_until(lambda: len(crowd.greeted) == 900, "all to be greeted")
            self.assertEqual((server.descriptors() - 900, server.descriptors_of(self._image), server.aio_queues()),
                             opened)

    def cve_2024_7409_silent_clients_keep_others_out_no_longer_than_a_handshake_may_take(self):
        with self._served_while_another_works("--handshake-timeout", 2, tcp=False) as (server, _), Crowd(server) as crowd:
            crowd.connect(DEFAULT_LIMIT - 1)
            crowd.wait_until(lambda: len(crowd.greeted) == DEFAULT_LIMIT - 1, "all to be greeted")
            crowd.connect(10)
            crowd.wait_until(lambda: crowd.refused == 10, "those past the limit to be refused")
            crowd.wait_until(lambda: len(crowd) == 0, "the silent ones to be closed")
            with RawClient.in_transmission(server) as newcomer:
                self.assertEqual(newcomer.ask(READ, 9, length=9)[1], 0)

    def ten_thousand_clients_are_held_and_one_more_is_refused_over_tcp(self):
        self._held(tcp=True)

    def ten_thousand_clients_are_held_and_one_more_is_refused_over_unix(self):
        self._held(tcp=False)

    def _held(self, tcp):
        self._need_descriptors(SILENT)
        with self._served_while_another_works("--max-connections", SILENT, "--handshake-timeout", 100, tcp=tcp,
                                              kept=KEPT + SILENT * RECORD) as (server, good), Crowd(server) as crowd:
            before, alone = server.status("VmRSS"), server.descriptors()
            left_behind = []
            for _ in range(1 if tcp else 2):
                crowd.connect(SILENT - 1)
                crowd.wait_until(lambda: len(crowd.greeted) == SILENT - 1, "all to be greeted")
                each = (server.status("VmRSS") - before) / SILENT
                print(f"{each / KIB:.1f} KiB for each silent client")
                good.expect_progress()
                with RawClient(server, flags=None) as one_more:
                    self.assertEqual(one_more.receive_rest(), b"")
                crowd.leave(1)
                served.wait_until(lambda: self._is_let_in(server), served.PATIENCE_S, "a newcomer to be let in")
                self.assertEqual((len(crowd.greeted), crowd.refused), (SILENT - 2, 0))
                crowd.leave()
                served.wait_until(lambda: server.descriptors() == alone, served.PATIENCE_S, "their descriptors' end")
                left_behind.append(server.status("VmRSS"))
            if not served.is_sanitized():
                self.assertLess(each, EACH)
                self.assertLess(left_behind[-1], left_behind[0] + 4 * MIB)

    @staticmethod
    def _is_let_in(server):
        with RawClient(server, flags=None) as client:
            try:
                return client.receive(1) != b""
            except (EOFError, ConnectionResetError):
                return False

    # File descriptors

    @staticmethod
    def _with_descriptors(which, count):
        return ["bash", "-c", f'ulimit {which} {count}; exec "$@"', "bash"]

    def the_limit_of_descriptors_is_raised_to_what_max_connections_needs(self):
        with self._served_while_another_works("--max-connections", 1000, tcp=False,
                                              prefix=self._with_descriptors("-Sn", 100)) as (server, _), \
                Crowd(server) as crowd:
            crowd.connect(999)
            crowd.wait_until(lambda: len(crowd.greeted) == 999, "all to be greeted")
            self.assertNotIn("file descriptors", server.log())

    def without_descriptors_for_newcomers_the_others_are_served_on(self):
        if served.is_sanitized():
            self.skipTest("UndefinedBehaviorSanitizer needs descriptors itself, and errs without them")
        with self._served_while_another_works("--max-connections", 1000, tcp=False,
                                              prefix=self._with_descriptors("-n", 100)) as (server, good), \
                Crowd(server) as crowd:
            server.wait_for_log("--max-connections 1000 needs 10[0-9]{2} file descriptors and this process may have 100:")
            crowd.connect(300)
            server.wait_for_log("Too many open files; trying again in a moment")
            good.expect_progress()
            crowd.leave()
            self.assertEqual(len(server.connect().pread(512, 0)), 512)

    # 500 that are slow

    def slow_lorises_in_the_handshake_are_closed_at_its_deadline_over_tcp(self):
        self._slow(tcp=True)

    def slow_lorises_in_the_handshake_are_closed_at_its_deadline_over_unix(self):
        self._slow(tcp=False)

    def _slow(self, tcp):
        flags = struct.pack(">I", FIXED_NEWSTYLE | NO_ZEROES)
        said = (flags, flags + option(LIST) * 100, flags + option(99, bytes(10_000)), flags + go(b"x" * 4000) * 10)
        with self._served_while_another_works("--max-connections", SLOW + 10, "--handshake-timeout", 2, tcp=tcp) \
                as (server, good):
            slow = {RawClient(server, flags=None): said[i % len(said)] for i in range(SLOW)}
            self.assertEqual(len([client for client in slow if client.receive(8) == b"NBDMAGIC"]), SLOW)
            deadline, at = time.monotonic() + served.PATIENCE_S, 0
            while slow and time.monotonic() < deadline:
                slow = {client: text for client, text in slow.items() if self._accepts(client, text[at:at + 1])}
                at += 1
                good.expect_progress(1)
            self.assertEqual(len(slow), 0, "slow clients are still connected")
            server.wait_for_log("no handshake within 2 s", count=10)  # of a second; the others are counted

    @staticmethod
    def _accepts(client, byte):
        try:
            client.send(byte)
            client.socket.setblocking(False)
            is_there = client.socket.recv(4096) != b""
        except BlockingIOError:
            return True  # It has nothing to say.
        except (BrokenPipeError, ConnectionResetError):
            is_there = False
        if not is_there:
            client.close()
        return is_there

    # 1,000 that leave at a random byte

    def a_thousand_clients_cut_at_random_bytes_over_tcp(self):
        self._cut(tcp=True)

    def a_thousand_clients_cut_at_random_bytes_over_unix(self):
        self._cut(tcp=False)

    def _cut(self, tcp):
        generator = random.Random(4)
        with self._served_while_another_works(tcp=tcp, kept=KEPT + POOL) as (server, good):
            present = []
            for i in range(CUT):
                client = RawClient(server, flags=None)
                said = self._conversation(generator)
                with gone_is_fine():
                    client.send(said[:generator.randrange(len(said))])
                present.append(client)
                if len(present) == 30:
                    self._leave(present.pop(generator.randrange(30)), generator)
                if i % 100 == 0:
                    good.expect_progress(1)
            for client in present:
                self._leave(client, generator)

    @staticmethod
    def _conversation(generator):
        """Everything in one go, as the replies do not matter: a handshake of any mode, and some requests."""
        def headers(what, length, payload=b"", flags=0):
            # Not into the good client's bytes.
            offset = generator.randrange(MIB, 8 * MIB)
            if mode == EXTENDED_HEADERS:
                flags |= 32 if payload else 0
                return struct.pack(">IHHQQQ", 0x21E41C71, flags, what, 5, offset, length) + payload
            return request(what, 5, offset, length, flags, payload)

        mode = generator.choice([None, STRUCTURED_REPLY, EXTENDED_HEADERS])
        said = struct.pack(">I", FIXED_NEWSTYLE | NO_ZEROES) + option(INFO, bytes(6))
        if mode is not None:
            said += option(mode) + meta_context(SET_META_CONTEXT, b"base:allocation")
        said += go()
        for _ in range(2):
            length = generator.choice([1, 600, 4096, 100_000])
            said += headers(READ, length) + headers(WRITE, length, generator.randbytes(length))
            said += headers(TRIM, length) + headers(WRITE_ZEROES, length) + headers(BLOCK_STATUS, length)
        return said + headers(FLUSH, 0)

    @staticmethod
    def _leave(client, generator):
        way = generator.choice(["close", "reset"] * 4 + ["half"])
        with gone_is_fine():
            if way == "reset":
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif way == "half":
                client.socket.shutdown(socket.SHUT_WR)
                client.receive_rest()
        client.close()

    # 60 that take part and then stall, twice: what the first ones leave behind is what the second ones use

    def readers_that_never_read_over_tcp(self):
        self._stalled(True, self._reader_that_never_reads)

    def readers_that_never_read_over_unix(self):
        self._stalled(False, self._reader_that_never_reads)

    def writers_that_never_send_their_payload_over_tcp(self):
        self._stalled(True, self._writer_without_payload)

    def writers_that_never_send_their_payload_over_unix(self):
        self._stalled(False, self._writer_without_payload)

    def _stalled(self, tcp, begin):
        with self._served_while_another_works("--max-in-flight", "2M", tcp=tcp, kept=KEPT + POOL) as (server, good):
            alone = server.descriptors()
            for _ in range(2):
                stalled = [RawClient.in_transmission(server) for _ in range(STALLED)]
                for number, client in enumerate(stalled):
                    begin(client, number)
                good.expect_progress(20)
                if not served.is_sanitized():
                    # The README's ceiling: one request of 32 MiB is always possible.
                    self.assertLess(server.status("VmHWM"), 64 * 34 * MIB + POOL)
                for client in stalled[::2]:
                    client.close()
                good.expect_progress()
                # Those that only stop sending and still do not read are as they were before.
                for client in stalled[1::2]:
                    with gone_is_fine():
                        client.socket.shutdown(socket.SHUT_WR)
                good.expect_progress()
                for client in stalled[1::2]:
                    client.close()
                served.wait_until(lambda: server.descriptors() == alone, served.PATIENCE_S, "the stalled ones' end")

    @staticmethod
    def _reader_that_never_reads(client, _):
        with gone_is_fine():
            client.send(request(READ, offset=MIB, length=MIB) * 100)

    @staticmethod
    def _writer_without_payload(client, number):
        with gone_is_fine():
            client.send(request(WRITE, offset=MIB, length=[1, 4096, 100_000, 4 * MIB][number % 4],
                                payload=bytes([0, 0, 50_000, 300_000][number % 4])))


if __name__ == "__main__":
    served.main(Crowds)
