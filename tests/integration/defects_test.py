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
from extended_client import (BLOCK_STATUS, EXTENDED_HEADERS, FAST_ZERO, LIST_META_CONTEXT, META_CONTEXT, NO_HOLE,
                             SET_META_CONTEXT, STRUCTURED_REPLY, ExtendedClient, meta_context)
from raw_client import (ABORT, ACK, DISC, EINVAL, ENOSPC, EPERM, EXPORT_NAME, GO, INFO, LIST, READ, STARTTLS, TRIM,
                        WRITE_ZEROES, RawClient, go, option, request, write)
from served import KIB, MIB
from tls_keys import TlsClient, TlsFacts

SIZE = 4 * MIB
SEND_FAST_ZERO = 1 << 11


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

    def cve_2013_6410_addresses_are_compared_as_numbers(self):
        # 127.0.0.1 is how the text of all of these begins; the last four bits of 16 to 31 differ.
        for keys in ([], self.keys.options()):
            with self.serve(self.image(SIZE), "--allow", "127.0.0.16/28", *keys, tcp=True) as server:
                for outside in ("127.0.0.1", "127.0.0.15", "127.0.0.32", "127.0.0.160"):
                    with self.assertRaises((EOFError, ConnectionResetError), msg=outside):
                        RawClient(server, source=outside)
                for inside in ("127.0.0.16", "127.0.0.31"):
                    with (TlsClient(server, self.keys.context(), source=inside) if keys
                          else RawClient(server, source=inside)) as client:
                        client.send(go())
                        self.assertEqual(client.finish_go()[0], SIZE)

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

    def cve_2017_7539_a_client_that_resets_in_the_midst_of_its_options(self):
        # Inside an option, and before answers that the server has yet to send.
        said = option(STRUCTURED_REPLY) + meta_context(LIST_META_CONTEXT) + option(LIST) + go()
        for _, enter in self._each_way():
            for count in range(1, len(said), 3):
                client = enter()
                client.send(said[:count])
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            for count in (100, 1000):
                client = enter()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(option(LIST) * count)
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

    def cve_2025_47712_block_status_whose_end_wraps(self):
        for tls in (False, True):
            with self.serve_tls(self.sparse(5 << 30), "--tls", "allowed") as server, \
                    (TlsClient(server, self.keys.context()) if tls else RawClient(server)) as client:
                client.send(option(STRUCTURED_REPLY) + meta_context(SET_META_CONTEXT, b"base:allocation") + go())
                self.assertEqual([client.option_reply()[0] for _ in range(3)], [ACK, META_CONTEXT, ACK])
                self.assertEqual(client.finish_go()[0], 5 << 30)
                # Rounded up to anything, the length or the end is 2^32 or more; the last one ends with the disk.
                for offset, length in ((0, 0xFFFFFFFF), (1, 0xFFFFFFFF), (511, 0xFFFFFE01), (0x80000001, 0x80000000),
                                       (0xFFFFFFFF, 1), (0xFFFFFFFF, 2), (0x100000000, 0x3FFFFFFF), (0x40000001, 0xFFFFFFFF)):
                    client.send(request(BLOCK_STATUS, 7, offset, length))
                    magic, flags, kind, cookie, size = struct.unpack(">IHHQI", client.receive(20))
                    self.assertEqual((magic, flags, kind, cookie), (0x668E33EF, 1, 5, 7))
                    lengths = struct.unpack(f">I{size // 4 - 1}I", client.receive(size))[1::2]
                    self.assertEqual(sum(lengths), length, (offset, length))  # of one hole, all is told
                self._still_serves_sparse(client)

    def _still_serves_sparse(self, client):
        client.send(request(READ, 9, (5 << 30) - 1, 1))
        self.assertEqual(struct.unpack(">IHHQ", client.receive(16))[3], 9)

    # What went by no name

    def fast_zeroes_that_were_not_offered(self):
        for options in ((), ("--read-only",)):
            for tls in (False, True):
                with self.serve_tls(self.image(SIZE), "--tls", "allowed", *options) as server, \
                        (TlsClient(server, self.keys.context()) if tls else RawClient(server)) as client:
                    client.send(go())
                    flags = client.finish_go()[1]
                    self.assertEqual(flags & SEND_FAST_ZERO == 0, "--read-only" in options)
                    before = client.ask(READ, SIZE, length=SIZE)[2]
                    if options:
                        self.assertIn(client.ask(WRITE_ZEROES, length=4096, flags=FAST_ZERO)[1], (EPERM, EINVAL))
                    self.assertEqual(client.ask(READ, length=4096, flags=FAST_ZERO)[1], EINVAL)
                    self.assertIn(client.ask(TRIM, length=4096, flags=FAST_ZERO)[1], (EPERM, EINVAL))
                    self.assertEqual(client.ask(READ, SIZE, length=SIZE)[2], before)

    def zeroes_of_more_than_64_mib_are_zeroes_to_their_end(self):
        begin, end = 1, 130 * MIB + 7
        marks = [begin + 1, 32 * MIB - 5, 64 * MIB - 5, 64 * MIB + 1, 128 * MIB - 5, 128 * MIB + 1, end - 10]
        for tls in (False, True):
            with self.serve_tls(self.sparse(131 * MIB), "--tls", "allowed") as server, \
                    (TlsClient(server, self.keys.context()) if tls else RawClient(server)) as client:
                client.send(go())
                client.finish_go()
                for flags in (0, NO_HOLE):
                    for at in (0, *marks, end):
                        client.send(write(b"\xa5" * 10, offset=at))
                        self.assertEqual(client.reply()[1], 0)
                    self.assertEqual(client.ask(WRITE_ZEROES, offset=begin, length=end - begin, flags=flags)[1], 0)
                    for at in marks:
                        self.assertEqual(client.ask(READ, 10, offset=at, length=10)[2], bytes(10), at)
                    self.assertEqual(client.ask(READ, 10, length=10)[2], b"\xa5" + bytes(9))
                    self.assertEqual(client.ask(READ, 10, offset=end, length=10)[2], b"\xa5" * 10)

    def a_limit_of_connections_counts_those_that_left_down(self):
        limit = 4
        options = ("--tls", "allowed", "--max-connections", limit, "--max-per-address", limit, "--handshake-timeout", 1)
        for tls in (False, True):
            with self.serve_tls(self.image(SIZE), *options) as server:
                def enter(tls=tls, server=server):
                    return TlsClient(server, self.keys.context()) if tls else RawClient(server)

                for come, say in ((enter, None), (enter, b"GET / HTTP/1.0\r\n\r\n"),
                                  (lambda server=server: RawClient(server), option(STARTTLS) + b"GET / HTTP/1.0\r\n\r\n"),
                                  (lambda enter=enter: self._in_transmission(enter), request(DISC)),
                                  (enter, b""), (enter, None)):
                    for client in self._let_in(server, come, limit):
                        if say is None:
                            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        else:
                            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                                client.send(say)
                            client.receive_rest()  # where nothing was said: until the time for that is over
                        client.close()
                for client in self._let_in(server, lambda enter=enter: self._in_transmission(enter), limit):
                    self.assertEqual(client.ask(READ, 5, length=5)[1], 0)
                    client.close()

    def _let_in(self, server, come, count):
        """So many clients at once, as soon as those before them have been counted out."""
        clients = []

        def are_all_in():
            with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
                clients.append(come())
            return len(clients) == count

        served.wait_until(are_all_in, served.PATIENCE_S, lambda: f"{len(clients)} of {count} came in:\n{server.log()}")
        return clients

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
