#!/usr/bin/python3
"""What other servers were brought down by, under the names it went by, over plain sockets and over TLS."""
import contextlib
import itertools
import os
import random
import signal
import socket
import struct

import served
from extended_client import (EXTENDED_HEADERS, LIST_META_CONTEXT, SET_META_CONTEXT, STRUCTURED_REPLY,
                             ExtendedClient, meta_context)
from raw_client import (ABORT, EINVAL, ENOSPC, EXPORT_NAME, GO, INFO, LIST, READ, STARTTLS, RawClient, go, option,
                        request, write)
from served import KIB, MIB
from tls_keys import TlsClient, TlsFacts

SIZE = 4 * MIB


class Defects(TlsFacts):
    def _each_way(self, *options):
        """(server, how to make a client that has said nothing yet beyond its flags, and TLS) for each way in."""
        for tls in (False, True):
            with self.serve_tls(self.image(SIZE), "--tls", "allowed", *options) as server:
                def enter(tls=tls, server=server):
                    return TlsClient(server, self.keys.context()) if tls else RawClient(server)
                yield server, enter
                self._still_serves(enter)

    def _still_serves(self, enter):
        with enter() as client:
            client.send(go())
            self.assertEqual(client.finish_go()[0], SIZE)
            client.send(write(b"alive", offset=3))
            self.assertEqual(client.reply()[1], 0)
            self.assertEqual(client.ask(READ, 5, offset=3, length=5), (0, 0, b"alive"))

    def _in_transmission(self, enter):
        client = enter()
        client.send(go())
        client.finish_go()
        return client

    # nbd-server

    def cve_2005_3534_a_request_larger_than_any_buffer(self):
        for _, enter in self._each_way():
            with self._in_transmission(enter) as client:
                for length in (0xFFFFFFFF, 0x80000000, 33 * MIB):
                    self.assertEqual(client.ask(READ, length=length)[1], EINVAL)
                client.send(write(bytes(SIZE + 1)))
                self.assertEqual(client.reply()[1], ENOSPC)

    def cve_2011_1925_an_answer_after_a_failed_negotiation(self):
        for _, enter in self._each_way():
            with enter() as client:
                for _ in range(3):
                    client.send(go(b"nowhere"))
                    client.option_reply()
                client.send(request(READ, length=512))  # which is no option
                self.assertEqual(client.receive_rest(), b"")

    def cve_2013_7441_a_client_that_leaves_early(self):
        steps = [option(LIST), go(b"nowhere"), go(), write(b"x", offset=9)]
        for _, enter in self._each_way():
            for count in range(len(steps)):
                for _ in range(5):
                    client = enter()
                    client.send(b"".join(steps[:count]))
                    client.close()

    def cve_2015_0847_signals_at_any_moment(self):
        for server, enter in self._each_way():
            for _ in range(30):
                server.signal(signal.SIGHUP)
                client = enter()
                server.signal(signal.SIGHUP)
                client.close()

    def cve_2022_26495_a_length_that_wraps(self):
        for _, enter in self._each_way():
            for number, name_length in itertools.product((INFO, GO), (0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFA, 0x80000000)):
                with enter() as client:
                    client.send(option(number, struct.pack(">IH", name_length, 0)))
                    kind, _ = client.option_reply()
                    self.assertGreaterEqual(kind, 0x80000000)
            self._announced_only(enter, 0xFFFFFFFF)

    def _announced_only(self, enter, length):
        for number in (EXPORT_NAME, GO, LIST, SET_META_CONTEXT, STARTTLS, 99):
            client = enter()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(b"IHAVEOPT" + struct.pack(">II", number, length) + bytes(1000))
            self.assertEqual(client.receive_rest(), b"")
            client.close()

    def cve_2022_26496_a_long_name(self):
        for _, enter in self._each_way():
            for length in (4096, 4097, 16 * KIB - 6, 60 * KIB):
                with enter() as client:
                    client.send(go(b"n" * length))
                    self.assertGreaterEqual(client.option_reply()[0], 0x80000000)
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        client.send(option(EXPORT_NAME, b"n" * length))
                    self.assertEqual(client.receive_rest(), b"")

    # QEMU

    def cve_2017_9524_a_client_that_hangs_up_in_its_first_words(self):
        for server, _ in self._each_way():
            for count in range(5):
                for _ in range(5):
                    client = RawClient(server, flags=None)
                    client.send(b"\0\0\0\3"[:count])
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()

    def cve_2017_15118_a_name_that_fills_its_option(self):
        for _, enter in self._each_way():
            with enter() as client:
                for number in (INFO, GO):
                    client.send(option(number, struct.pack(">I", 4090) + b"n" * 4090 + b"\0\0"))
                    self.assertGreaterEqual(client.option_reply()[0], 0x80000000)

    def cve_2017_15119_an_option_of_4_gib(self):
        for _, enter in self._each_way():
            self._announced_only(enter, 0xFFFFFFFF)

    def cve_2020_10761_a_long_name_in_an_error(self):
        for _, enter in self._each_way():
            with enter() as client:
                for name in (b"n" * 4096, "ä".encode() * 2048):
                    client.send(go(name))
                    kind, sentence = client.option_reply()
                    self.assertGreaterEqual(kind, 0x80000000)
                    self.assertLessEqual(len(sentence), 4096)
                    sentence.decode()

    def cve_2024_7409_a_crowd_that_never_finishes_its_handshake(self):
        for server, enter in self._each_way("--handshake-timeout", 2, "--max-connections", 30):
            with self._in_transmission(enter) as good:
                silent = [enter() for _ in range(10)] + [RawClient(server) for _ in range(10)]
                for client in silent[:5]:
                    client.send(b"IHAV")
                for client in silent[-5:]:
                    client.send(option(STARTTLS))
                for client in silent:
                    client.receive_rest()
                    client.close()
                server.wait_for_log("no handshake within 2 s", count=10)  # of a second; the others are counted
                self.assertEqual(good.ask(READ, 5, length=5)[1], 0)

    # nbdkit

    def cve_2019_14850_a_visitor_opens_nothing(self):
        for server, _ in self._each_way():
            before = len(os.listdir(f"/proc/{server.pid}/fd"))
            visitors = [RawClient(server) for _ in range(10)]
            for client in visitors:
                client.send(option(LIST))
                client.option_reply()
            self.assertEqual(len(os.listdir(f"/proc/{server.pid}/fd")), before + 10)
            for client in visitors:
                client.close()

    def cve_2019_14851_options_in_any_order(self):
        rng = random.Random(8)
        options = [option(LIST), option(STRUCTURED_REPLY), option(EXTENDED_HEADERS), go(b"nowhere"),
                   meta_context(LIST_META_CONTEXT), meta_context(SET_META_CONTEXT, b"base:allocation"),
                   option(99, b"data"), option(LIST, b"data")]
        for _, enter in self._each_way():
            for _ in range(20):
                with enter() as client:
                    client.send(b"".join(rng.choices(options, k=10)) + option(ABORT))
                    self.assertTrue(client.receive_rest())

    def cve_2021_3716_clear_text_injected_before_tls(self):
        for server, _ in self._each_way():
            client = RawClient(server)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(option(STARTTLS) + option(STRUCTURED_REPLY))
            self.assertEqual(client.receive_rest(), b"")
            client.close()

    def cve_2021_3716_what_was_agreed_in_clear_text_is_forgotten(self):
        with self.serve_tls(self.image(SIZE), "--tls", "allowed") as server:
            client = RawClient(server)
            client.send(option(STRUCTURED_REPLY))
            self.assertEqual(client.option_reply()[0], 1)
            client.send(option(STARTTLS))
            self.assertEqual(client.option_reply()[0], 1)
            client.socket = self.keys.context().wrap_socket(client.socket, server_hostname="localhost")
            client.send(go())
            client.finish_go()
            self.assertEqual(client.ask(READ, 5, length=5)[1], 0)  # in a simple reply
            client.close()

    def cve_2025_47711_block_status_of_4_gib(self):
        for tls in (False, True):
            with self.serve_tls(self.sparse(5 << 30), "--tls", "allowed") as server:
                with self._extended(server, tls) as client:
                    for offset, length in ((0, 0xFFFFFFFF), (1, 0xFFFFFFFF), (0, 5 << 30), (511, 0xFFFFFFFF)):
                        extents = client.block_status(offset, length)
                        self.assertGreater(sum(each for each, _ in extents), 0)
                    self.assertEqual(client.ask(READ, 0, 16)[-1][0] & 0x8000, 0)

    def _extended(self, server, tls):
        if not tls:
            return ExtendedClient(server)
        context = self.keys.context()

        class Secured(ExtendedClient):
            def send(self, data):
                # Between the greeting, which RawClient answers, and the first option.
                if data[:8] == b"IHAVEOPT" and not hasattr(self, "plain"):
                    self.plain = self.socket
                    super().send(option(STARTTLS))
                    self.option_reply()
                    self.socket = context.wrap_socket(self.plain, server_hostname="localhost")
                super().send(data)
        return Secured(server)


if __name__ == "__main__":
    served.main(Defects)
