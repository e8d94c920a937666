#!/usr/bin/python3
"""Whoever breaks TLS, abuses it or stalls in it ends his own connection: a good client is served all the while, and
everything is given back."""
import concurrent.futures
import contextlib
import os
import random
import resource
import signal
import socket
import ssl
import threading
import time

import hostile_clients_test
import served
from raw_client import ERR_INVALID, FLUSH, LIST, READ, STARTTLS, RawClient, go, option, request, write
from served import KIB, MIB
from tls_keys import TlsClient, TlsFacts

CROWD = 1000


class BareTls(RawClient):
    """A client whose TLS is done by hand: every byte of it can be held back, changed or sent twice."""

    def __init__(self, server, context):
        super().__init__(server)
        self.send(option(STARTTLS))
        self.option_reply()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    def shake_hands(self):
        """Yields what is to be sent for each step of the handshake; who sends it is the caller."""
        while True:
            try:
                self.tls.do_handshake()
                if self._out.pending:
                    yield self._out.read()
                return
            except ssl.SSLWantReadError:
                if self._out.pending:
                    yield self._out.read()
                self._in.write(self.socket.recv(1 << 16))

    def agree(self):
        for step in self.shake_hands():
            self.send(step)
        return self

    def sealed(self, data):
        self.tls.write(data)
        return self._out.read()

    def goodbye(self):
        """The bytes of a close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._out.read()

    def receive(self, length):
        if not hasattr(self, "tls"):
            return super().receive(length)
        data = bytearray()
        while len(data) < length:
            try:
                data += self.tls.read(length - len(data))
            except ssl.SSLWantReadError:
                more = self.socket.recv(1 << 16)
                if not more:
                    raise EOFError(f"the server closed after {len(data)} of {length} bytes") from None
                self._in.write(more)
        return bytes(data)


class _Served(TlsFacts, hostile_clients_test.HostileClients):
    def serve(self, file, *options, **how):
        server = super().serve(file, *self.keys.options(*options), **how)
        server.connect = lambda: self.keys.connect(server)
        return server


class HostileOverTls(_Served):
    """Beside its own, those facts of the same name about plain sockets that are listed at the end."""

    def _close(self, client):
        with contextlib.suppress(OSError):
            client.close()

    # Clear text where TLS should be, and the other way round

    def clear_text_injected_behind_starttls_ends_the_connection(self):
        with self._served_while_another_works() as server:
            for injected in (b"x", option(LIST), go(), write(b"x" * 100), bytes(100000)):
                client = RawClient(server)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(option(STARTTLS) + injected)
                # Not even the STARTTLS is answered, or what was injected would seem to have been taken.
                self.assertEqual(client.receive_rest(), b"")
                client.close()
            server.wait_for_log("bytes in clear text behind STARTTLS, closing", count=5)

    def clear_text_in_place_of_a_hello_ends_the_connection(self):
        rng = random.Random(4)
        with self._served_while_another_works() as server:
            for sent in (option(LIST), go(), b"\x16\x03\x01\xff\xff", rng.randbytes(5000), b"GET / HTTP/1.0\r\n\r\n"):
                client = RawClient(server)
                client.send(option(STARTTLS))
                client.option_reply()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(sent)
                    client.socket.shutdown(socket.SHUT_WR)
                self.assertLess(len(client.receive_rest()), 50)  # an alert, at most
                client.close()
            server.wait_for_log("no TLS: ", count=5)

    def tls_in_place_of_the_greeting_ends_the_connection(self):
        with self._served_while_another_works() as server:
            client = RawClient(server, flags=None)
            client.receive(18)
            client.send(self._hello())
            self.assertEqual(client.receive_rest(), b"")  # not even an alert: nobody has asked for TLS
            client.close()

    def a_second_starttls_is_refused_through_tls(self):
        with self._served_while_another_works() as server:
            with TlsClient(server, self.keys.context()) as client:
                client.send(option(STARTTLS))
                self.assertEqual(client.option_reply()[0], ERR_INVALID)
                client.send(go())
                self.assertEqual(client.finish_go()[0], 4 * MIB)

    # Records

    def a_conversation_in_tls_cut_at_many_bytes_is_survived(self):
        rng = random.Random(5)
        said = go() + write(b"x" * 40, offset=MIB) + request(READ, offset=MIB, length=5000) + request(FLUSH)
        with self._served_while_another_works() as server:
            for _ in range(60):
                client = BareTls(server, self.keys.context())
                left = rng.randrange(4000)
                steps = client.shake_hands()
                while left > 0:
                    step = next(steps, None)
                    # Behind the handshake, the conversation; whoever got through it leaves in its last record.
                    data = step or client.sealed(said)
                    client.send(data[:left] if step else data[:min(left, len(data) - 1)])
                    left = left - len(data) if step else 0
                if rng.random() < 0.5:
                    client.socket.shutdown(socket.SHUT_WR)
                    client.receive_rest()
                self._close(client)

    def a_changed_record_ends_the_connection_and_changes_nothing(self):
        rng = random.Random(6)
        with self._served_while_another_works() as server:
            for _ in range(20):
                client = BareTls(server, self.keys.context()).agree()
                client.send(client.sealed(go()))
                client.finish_go()
                sealed = bytearray(client.sealed(write(b"evil" * 500, offset=2 * MIB)))
                sealed[rng.randrange(5, len(sealed))] ^= 1 << rng.randrange(8)
                client.send(sealed)
                self._expect_end(client)
            good = server.connect()
            before = good.pread(2000, 2 * MIB)
            self.assertNotIn(b"evil", before)
            server.wait_for_log("connection ended: TLS: ", count=10)  # of a second; the others are counted

    def a_record_sent_twice_ends_the_connection(self):
        with self._served_while_another_works() as server:
            client = BareTls(server, self.keys.context()).agree()
            client.send(client.sealed(go()))
            client.finish_go()
            sealed = client.sealed(write(b"once", offset=MIB))
            client.send(sealed)
            self.assertEqual(client.reply()[1], 0)
            client.send(sealed)
            self._expect_end(client)

    def garbage_in_place_of_records_ends_the_connection(self):
        rng = random.Random(7)
        with self._served_while_another_works() as server:
            for length in (1, 5, 100, 20000, 300000):
                client = BareTls(server, self.keys.context()).agree()
                client.send(client.sealed(go()))
                client.finish_go()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(b"\x17\x03\x03" + rng.randbytes(length))
                    client.socket.shutdown(socket.SHUT_WR)
                self._expect_end(client)

    # Good-byes

    def replies_still_arrive_behind_a_close_notify(self):
        with self._served_while_another_works(tcp=True) as server:
            client = BareTls(server, self.keys.context()).agree()
            client.send(client.sealed(go()))
            client.finish_go()
            asked = b"".join(request(READ, cookie=i, length=300000) for i in range(10))
            client.send(client.sealed(asked) + client.goodbye())
            self.assertEqual(sorted(client.reply(300000)[0] for _ in range(10)), list(range(10)))
            self._close(client)
            server.wait_for_log("closed the connection without NBD_CMD_DISC")

    def what_is_said_behind_a_close_notify_is_not_heard(self):
        with self._served_while_another_works() as server:
            client = BareTls(server, self.keys.context()).agree()
            client.send(client.sealed(go()))
            client.finish_go()
            first = client.sealed(write(b"heard", offset=MIB))
            client.send(first + client.goodbye() + b"\x17\x03\x03\x00\x64" + bytes(100))
            self.assertEqual(client.reply()[1], 0)
            self._expect_end(client)
            self.assertEqual(server.connect().pread(5, MIB), b"heard")
            server.wait_for_log("closed the connection without NBD_CMD_DISC")

    def good_byes_at_odd_moments_are_survived(self):
        with self._served_while_another_works() as server:
            for before in (b"", option(LIST), go(), go() + write(b"y" * 70000, offset=MIB)[:60000]):
                for twice in (False, True):
                    client = BareTls(server, self.keys.context()).agree()
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        client.send((client.sealed(before) if before else b"") + client.goodbye() * (1 + twice))
                    self._expect_end(client)

    def half_closed_sockets_get_their_replies(self):
        with self._served_while_another_works(tcp=True) as server:
            client = BareTls(server, self.keys.context()).agree()
            client.send(client.sealed(go()))
            client.finish_go()
            client.send(client.sealed(b"".join(request(READ, cookie=i, length=300000) for i in range(10))))
            client.socket.shutdown(socket.SHUT_WR)  # without a close_notify
            self.assertEqual(sorted(client.reply(300000)[0] for _ in range(10)), list(range(10)))
            self._close(client)

    def half_closed_sockets_in_the_handshake_are_closed(self):
        with self._served_while_another_works() as server:
            for steps in range(2):
                client = BareTls(server, self.keys.context())
                sent = client.shake_hands()
                for _ in range(steps):
                    client.send(next(sent))
                client.socket.shutdown(socket.SHUT_WR)
                self._expect_end(client)

    # Crowds and silence

    def a_client_silent_in_the_tls_handshake_is_closed_after_the_timeout(self):
        with self._served_while_another_works("--handshake-timeout", 1) as server:
            silent, slow = (BareTls(server, self.keys.context()) for _ in range(2))
            slow.send(next(slow.shake_hands())[:100])
            for client in (silent, slow):
                self._expect_end(client)
            server.wait_for_log("no handshake within 1 s", count=2)

    def a_client_silent_behind_the_tls_handshake_is_closed_after_the_timeout(self):
        with self._served_while_another_works("--handshake-timeout", 1) as server:
            client = BareTls(server, self.keys.context()).agree()
            self._expect_end(client)
            server.wait_for_log("no handshake within 1 s")

    def a_client_that_sends_its_hello_byte_by_byte_is_closed_as_well(self):
        with self._served_while_another_works("--handshake-timeout", 1) as server:
            client = BareTls(server, self.keys.context())
            hello = next(client.shake_hands())
            with self.assertRaises((BrokenPipeError, ConnectionResetError)):
                for at in range(200):
                    client.send(hello[at:at + 1])
                    time.sleep(0.05)
            client.close()

    def a_thousand_stalled_tls_handshakes_disturb_nobody_and_are_given_back(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard < 2 * CROWD:
            self.skipTest(f"only {hard} files may be open")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with self.serve(self.image(4 * MIB), "--max-connections", CROWD + 10, "--max-per-address", CROWD + 10,
                        "--handshake-timeout", 20) as server:
            good = server.connect()
            open_before, memory_before = self._descriptors(server), server.status("VmRSS")
            for _ in range(2):
                crowd = [self._stalled(server, number) for number in range(CROWD)]
                self.assertGreaterEqual(self._descriptors(server), open_before + CROWD)
                for offset in range(0, 4 * MIB, 256 * KIB):
                    good.pwrite(b"z" * 100000, offset % (3 * MIB))
                    self.assertEqual(good.pread(100000, offset % (3 * MIB)), b"z" * 100000)
                self.assertIn(b"z", server.connect().pread(1, 0))  # and another comes in
                for client in crowd:
                    client.close()
                served.wait_until(lambda: self._descriptors(server) <= open_before, served.PATIENCE_S, "descriptors")
            if not served.is_sanitized():  # which keep what was given back, to see whether somebody uses it
                served.wait_until(lambda: server.status("VmRSS") < memory_before + 24 * MIB, served.PATIENCE_S,
                                  lambda: f"{server.status('VmRSS')} bytes to become {memory_before}")
            good.shutdown()

    def _stalled(self, server, number):
        """A client that stops somewhere on its way through TLS."""
        client = RawClient(server)
        client.send(option(STARTTLS))
        client.option_reply()
        if number % 3 == 1:
            client.send(b"\x16\x03\x01\x02")
        elif number % 3 == 2:
            client.send(self._hello())
        return client

    def _hello(self):
        """The first bytes of a client of TLS."""
        hello = ssl.MemoryBIO()
        tls = self.keys.context(None).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        return hello.read()

    @staticmethod
    def _descriptors(server):
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    def clients_that_never_read_are_not_read_from(self):
        asked = request(READ, length=MIB) * 1000
        with self.serve(self.image(16 * MIB), "--max-in-flight", "8M", "--max-connections", 5) as server:
            greedy = [BareTls(server, self.keys.context()).agree() for _ in range(4)]
            for client in greedy:
                client.send(client.sealed(go()))
                client.finish_go()
                client.socket.settimeout(0.5)
                with self.assertRaises(TimeoutError):
                    for _ in range(400):
                        client.send(client.sealed(asked))
            good = server.connect()
            for offset in range(0, 16 * MIB, MIB):
                self.assertEqual(len(good.pread(65536, offset)), 65536)
            good.shutdown()
            ceiling = (32 if not served.is_sanitized() else 160) * MIB
            self.assertLess(server.status("VmHWM"), 5 * (8 * MIB + 3 * 256 * KIB) + ceiling)
            for client in greedy:
                self._close(client)

    @served.loops
    def keys_read_again_and_again_under_load_disturb_nobody(self):
        with (self._served_while_another_works("--threads", 2) as server,
              concurrent.futures.ThreadPoolExecutor() as pool):
            is_over = threading.Event()
            busy = [pool.submit(self._work_until, is_over, server, MIB + number * 256 * KIB) for number in range(4)]
            try:
                for number in range(50):
                    server.signal(signal.SIGHUP)
                    with TlsClient.in_transmission(server, context=self.keys.context()) as client:
                        client.send(write(b"%08d" % number, offset=3 * MIB))
                        self.assertEqual(client.reply()[1], 0)
            finally:
                is_over.set()
            for each in busy:
                self.assertGreater(each.result(), 0)
            server.wait_for_log("new connections: ", count=5)  # some of the signals were one

    def _work_until(self, is_over, server, offset):
        """How often something was written and read."""
        rounds = 0
        with TlsClient.in_transmission(server, context=self.keys.context()) as client:
            while not is_over.is_set():
                data = bytes([rounds % 256]) * 100000
                client.send(write(data, offset=offset))
                self.assertEqual(client.reply()[1], 0)
                self.assert_same_bytes(client.ask(READ, len(data), offset=offset, length=len(data))[2], data)
                rounds += 1
        return rounds


# The same as over plain sockets, by the same words.
_AGAIN = (
    "garbage_in_the_handshake_ends_the_connection",
    "an_option_of_4_gib_ends_the_connection",
    "endless_options_end_the_connection",
    "garbage_in_transmission_ends_the_connection",
    "garbage_behind_a_good_request_does_not_undo_it",
    "random_requests_with_good_magic_are_survived",
    "a_write_longer_than_32_mib_is_drained_and_refused",
    "a_write_longer_than_64_mib_ends_the_connection",
    "a_write_past_the_end_is_drained_and_refused",
    "clients_that_vanish_with_requests_in_flight_are_survived",
)


class _UpgradedClient(TlsClient):
    keys = None

    def __init__(self, server, **how):
        super().__init__(server, self.keys.context(), **how)


def _over_tls(name):
    plain = getattr(hostile_clients_test.HostileClients, name)

    def fact(self):
        _UpgradedClient.keys = self.keys
        hostile_clients_test.RawClient = _UpgradedClient
        plain(self)
    fact.needs = getattr(plain, "needs", [])
    return fact


for _name in _AGAIN:
    setattr(HostileOverTls, _name, _over_tls(_name))


if __name__ == "__main__":
    served.main(HostileOverTls)
