#!/usr/bin/python3
"""SIGTERM and SIGINT: what is in flight is finished and answered, and the server ends with status 0."""
import os
import signal
import socket
import time

import served
from raw_client import ERR_SHUTDOWN, ESHUTDOWN, READ, WRITE, RawClient, go, request, write
from served import KIB, MIB


class Stopping(served.Facts):
    def _tell_to_stop(self, server, which=signal.SIGTERM):
        server.signal(which)
        server.wait_for_notice("STOPPING=1")

    def _half_a_write(self, server, length=MIB):
        """A client with a request in flight for as long as the test likes: half of its payload is missing."""
        client = RawClient.in_transmission(server)
        client.send(request(WRITE, cookie=1, offset=5, length=length, payload=b"w" * (length // 2)))
        return client

    def _half_a_write_is_in_flight(self, server):
        # A second client's reply shows that the loop has seen what the first sent before.
        with RawClient.in_transmission(server) as other:
            other.ask(READ, 1, length=1)

    # Nothing to finish

    def sigterm_ends_an_idle_server(self):
        self._ends_promptly(signal.SIGTERM)

    def sigint_ends_an_idle_server(self):
        self._ends_promptly(signal.SIGINT)

    def _ends_promptly(self, which):
        with self.serve(self.image(MIB)) as server:
            began = time.monotonic()
            server.signal(which)
            server.expect_end(0)
            self.assertLess(time.monotonic() - began, 5)

    def cve_2015_0847_a_signal_in_the_middle_of_anything_is_harmless(self):
        image = self.image(MIB)
        for delay in range(12):
            with self.serve(image, "--threads", 2) as server:
                clients = [RawClient.in_transmission(server) for _ in range(4)]
                for client in clients:
                    client.send(write(bytes(4096), offset=0) * 50 + request(READ, length=65536) * 50)
                time.sleep(delay / 1000)
                server.signal(signal.SIGTERM)
                for client in clients:
                    client.receive_rest()
                    client.close()
                server.expect_end(0)

    def idle_clients_do_not_delay_the_end(self):
        with self.serve(self.image(MIB)) as server:
            clients = [RawClient.in_transmission(server) for _ in range(3)]
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            for client in clients:
                self.assertEqual(client.receive_rest(), b"")
                client.close()
            server.expect_end(0)
            self.assertLess(time.monotonic() - began, 5)

    def a_silent_client_in_its_handshake_delays_the_end_a_second(self):
        with self.serve(self.image(MIB)) as server:
            client = RawClient(server)
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            self.assertEqual(client.receive_rest(), b"")
            server.expect_end(0)
            self.assertLess(time.monotonic() - began, 5)
            client.close()

    # In flight

    def a_request_in_flight_is_finished_and_the_next_refused(self):
        for which in (signal.SIGTERM, signal.SIGINT):
            for tcp in (False, True):
                with self.subTest(which=which, tcp=tcp):
                    image = self.image(2 * MIB)
                    with self.serve(image, tcp=tcp) as server:
                        client = self._half_a_write(server)
                        self._half_a_write_is_in_flight(server)
                        self._tell_to_stop(server, which)
                        client.send(b"w" * (MIB // 2) + request(READ, cookie=2, length=4096) +
                                    write(b"late", cookie=3, offset=0))
                        replies = {client.reply()[:2] for _ in range(3)}
                        self.assertEqual(replies, {(1, 0), (2, ESHUTDOWN), (3, ESHUTDOWN)})
                        self.assertEqual(client.receive_rest(), b"")
                        client.close()
                        server.expect_end(0)
                    content = image.read_bytes()
                    self.assertEqual(content[5:MIB + 5], b"w" * MIB)
                    self.assertNotEqual(content[:4], b"late")

    def a_reply_on_its_way_arrives_whole(self):
        for tcp in (False, True):
            with self.subTest(tcp=tcp):
                image = self.image(32 * MIB)
                with self.serve(image, tcp=tcp) as server:
                    client = RawClient.in_transmission(server)
                    client.send(request(READ, cookie=1, length=32 * MIB))
                    client.receive(16 + MIB)
                    self._tell_to_stop(server)
                    rest = client.receive_rest()
                    self.assert_same_bytes(rest, image.read_bytes()[MIB:])
                    client.close()
                    server.expect_end(0)

    def a_reply_on_its_way_arrives_whole_though_its_client_goes_on_asking(self):
        for tcp in (False, True):
            with self.subTest(tcp=tcp):
                image = self.image(32 * MIB)
                with self.serve(image, tcp=tcp) as server:
                    client = RawClient.in_transmission(server)
                    client.send(request(READ, cookie=1, length=32 * MIB))
                    client.receive(16)
                    self._tell_to_stop(server)
                    found = bytearray()
                    while len(found) < 32 * MIB:
                        try:
                            client.send(request(READ, cookie=2, length=4096))
                        except (BrokenPipeError, ConnectionResetError):
                            pass  # It has said its last, which must reach us all the same.
                        found += client.receive(MIB)
                    self.assert_same_bytes(bytes(found), image.read_bytes())
                    client.close()
                    server.expect_end(0)

    def everything_acknowledged_is_in_the_file(self):
        image = self.sparse(64 * MIB)
        with self.serve(image) as server:
            client = RawClient.in_transmission(server)
            acknowledged, sent = set(), 0
            told = False
            try:
                while sent < 64 * MIB // 1000:
                    client.send(b"".join(write(bytes([1 + i % 255]) * 1000, cookie=i, offset=i * 1000)
                                         for i in range(sent, sent + 32)))
                    sent += 32
                    for _ in range(32):
                        cookie, error, _ = client.reply()
                        if error == 0:
                            acknowledged.add(cookie)
                        else:
                            self.assertEqual(error, ESHUTDOWN)
                    if sent == 3200 and not told:
                        told = True
                        server.signal(signal.SIGTERM)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                pass
            client.close()
            server.expect_end(0)
        self.assertGreaterEqual(len(acknowledged), 3200)
        content = image.read_bytes()
        for i in acknowledged:
            self.assertEqual(content[i * 1000:i * 1000 + 1000], bytes([1 + i % 255]) * 1000, f"write {i}")

    def a_client_in_its_handshake_is_told(self):
        with self.serve(self.image(MIB)) as server:
            client = RawClient(server)
            with RawClient(server):
                pass
            self._tell_to_stop(server)
            client.send(go())
            self.assertEqual(client.option_reply()[0], ERR_SHUTDOWN)
            client.close()
            server.expect_end(0)

    def nobody_new_is_let_in(self):
        with self.serve(self.image(2 * MIB), tcp=True) as server:
            client = self._half_a_write(server)
            self._half_a_write_is_in_flight(server)
            port = server.port
            self._tell_to_stop(server)
            served.wait_until(lambda: self._is_refused(port), served.PATIENCE_S, "a refused connection")
            client.send(b"w" * (MIB // 2))
            self.assertEqual(client.reply()[:2], (1, 0))
            client.close()
            server.expect_end(0)

    @staticmethod
    def _is_refused(port):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        return False

    # Deadlines

    def a_stalled_client_is_cut_off_at_the_drain_timeout(self):
        with self.serve(self.image(2 * MIB), "--drain-timeout", 1) as server:
            client = self._half_a_write(server)
            self._half_a_write_is_in_flight(server)
            began = time.monotonic()
            self._tell_to_stop(server)
            self.assertEqual(client.receive_rest(), b"")
            server.expect_end(0)
            self.assertTrue(0.8 < time.monotonic() - began < 8)
            self.assertIn("1 clients did not finish in time and are cut off", server.log())
            client.close()

    def a_client_that_does_not_read_is_cut_off_at_the_drain_timeout(self):
        for tcp in (False, True):
            with self.subTest(tcp=tcp), self.serve(self.image(32 * MIB), "--drain-timeout", 1, tcp=tcp) as server:
                client = RawClient.in_transmission(server)
                client.send(b"".join(request(READ, length=8 * MIB) for _ in range(12)))
                client.receive(16)
                began = time.monotonic()
                self._tell_to_stop(server)
                server.expect_end(0)
                self.assertTrue(0.8 < time.monotonic() - began < 8)
                client.close()

    def a_drain_timeout_of_0_does_not_wait(self):
        with self.serve(self.image(2 * MIB), "--drain-timeout", 0) as server:
            client = self._half_a_write(server)
            self._half_a_write_is_in_flight(server)
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            server.expect_end(0)
            self.assertLess(time.monotonic() - began, 5)
            client.close()

    def a_second_signal_ends_it_at_once(self):
        with self.serve(self.image(2 * MIB)) as server:
            path = server.socket_path
            client = self._half_a_write(server)
            self._half_a_write_is_in_flight(server)
            self._tell_to_stop(server)
            began = time.monotonic()
            server.signal(signal.SIGINT)
            server.expect_end(1)
            self.assertLess(time.monotonic() - began, 5)
            self.assertFalse(os.path.exists(path))
            client.close()

    @served.loops
    def clients_of_2_loops_are_all_finished(self):
        image = self.image(4 * MIB)
        with self.serve(image, "--threads", 2) as server:
            clients = [self._half_a_write(server, 64 * KIB) for _ in range(4)]
            for _ in range(4):
                self._half_a_write_is_in_flight(server)
            self._tell_to_stop(server)
            for client in clients:
                client.send(b"w" * (32 * KIB))
                self.assertEqual(client.reply()[:2], (1, 0))
                client.close()
            server.expect_end(0)
        self.assertEqual(image.read_bytes()[5:64 * KIB + 5], b"w" * (64 * KIB))


if __name__ == "__main__":
    served.main(Stopping)
