#!/usr/bin/python3
"""Byte by byte, what clients may say and libraries do not: old handshakes, one segment for everything, odd cookies."""
import socket
import struct
import time

import served
from raw_client import (ABORT, ACK, DISC, EINVAL, ERR_INVALID, ERR_UNKNOWN, ERR_UNSUP, EXPORT_NAME, FIXED_NEWSTYLE,
                        FLUSH, GREETING, INFO, INFO_REPLY, LIST, NO_ZEROES, READ, SERVER, STARTTLS, TRIM, WRITE_ZEROES,
                        RawClient, go, option, request, write)
from served import KIB, MIB


class Conversation(served.Facts):
    # Handshake

    def the_greeting_is_fixed_newstyle_with_no_zeroes(self):
        with self.serve(self.image(MIB)) as server, RawClient(server) as client:
            self.assertEqual(client.greeting, GREETING + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))

    def export_name_without_no_zeroes_is_followed_by_124_zero_bytes(self):
        image = self.image(MIB)
        for flags in (FIXED_NEWSTYLE, 0):
            with self.serve(image) as server, RawClient(server, flags=flags) as client:
                client.send(option(EXPORT_NAME))
                answer = client.receive(8 + 2 + 124)
                self.assertEqual(answer[:8], struct.pack(">Q", MIB))
                self.assertEqual(answer[10:], bytes(124))
                self.assertEqual(client.ask(READ, 9, cookie=5, length=9), (5, 0, image.read_bytes()[:9]))

    def export_name_with_no_zeroes_is_followed_by_nothing(self):
        image = self.image(MIB)
        for flags in (FIXED_NEWSTYLE | NO_ZEROES, NO_ZEROES):
            with self.serve(image) as server, RawClient(server, flags=flags) as client:
                client.send(option(EXPORT_NAME) + request(READ, cookie=5, length=9))
                self.assertEqual(client.receive(10)[:8], struct.pack(">Q", MIB))
                self.assertEqual(client.reply(9), (5, 0, image.read_bytes()[:9]))

    def export_name_of_an_unknown_export_is_answered_by_closing(self):
        with self.serve(self.image(MIB), "--name", "disk") as server, RawClient(server) as client:
            client.send(option(EXPORT_NAME, b"other"))
            self.assertEqual(client.receive_rest(), b"")

    def go_to_an_unknown_export_is_an_error_and_the_handshake_goes_on(self):
        with self.serve(self.image(MIB), "--name", "disk") as server, RawClient(server) as client:
            client.send(go(b"other"))
            self.assertEqual(client.option_reply()[0], ERR_UNKNOWN)
            client.send(go(b"disk"))
            self.assertEqual(client.finish_go()[0], MIB)
            self.assertEqual(client.ask(READ, 1, length=1)[1], 0)

    def the_empty_name_is_the_only_export(self):
        with self.serve(self.image(MIB), "--name", "disk") as server, RawClient(server) as client:
            client.send(go())
            self.assertEqual(client.finish_go()[0], MIB)

    def go_and_export_name_tell_the_same(self):
        with self.serve(self.image(MIB)) as server, RawClient(server) as new, RawClient(server) as old:
            new.send(go())
            old.send(option(EXPORT_NAME))
            self.assertEqual(new.finish_go(), struct.unpack(">QH", old.receive(10)))

    def info_binds_nothing(self):
        with self.serve(self.image(MIB)) as server, RawClient(server) as client:
            for _ in range(2):
                client.send(option(INFO, struct.pack(">IH", 0, 0)))
                kind, data = client.option_reply()
                self.assertEqual((kind, data[2:10]), (INFO_REPLY, struct.pack(">Q", MIB)))
                self.assertEqual(client.option_reply()[0], ACK)
            client.send(go())
            client.finish_go()

    def list_names_the_export(self):
        with self.serve(self.image(MIB), "-n", "disk", "-D", "text") as server, RawClient(server) as client:
            client.send(option(LIST))
            self.assertEqual(client.option_reply(), (SERVER, struct.pack(">I", 4) + b"disktext"))
            self.assertEqual(client.option_reply(), (ACK, b""))
            client.send(option(LIST, b"?"))
            self.assertEqual(client.option_reply()[0], ERR_INVALID)

    def abort_is_acknowledged_and_ends_it(self):
        with self.serve(self.image(MIB)) as server, RawClient(server) as client:
            client.send(option(ABORT))
            self.assertEqual(client.option_reply(), (ACK, b""))
            self.assertEqual(client.receive_rest(), b"")

    def options_that_are_not_served_are_unsupported_with_a_sentence(self):
        with self.serve(self.image(MIB)) as server, RawClient(server) as client:
            for number in (STARTTLS, 77, 0xFFFF):
                client.send(option(number, b"" if number == STARTTLS else b"some data"))
                kind, text = client.option_reply()
                self.assertEqual(kind, ERR_UNSUP)
                self.assertGreater(len(text.decode()), 5)

    # Segments

    def everything_in_one_segment_is_answered_in_full(self):
        image = self.image(MIB)
        content = image.read_bytes()
        with self.serve(image) as server, RawClient(server, flags=None) as client:
            client.send(struct.pack(">I", FIXED_NEWSTYLE | NO_ZEROES) + option(LIST) + go() +
                        request(READ, cookie=1, length=10) + request(READ, cookie=2, offset=600, length=10))
            client.receive(18)
            self.assertEqual([client.option_reply()[0] for _ in range(2)], [SERVER, ACK])
            client.finish_go()
            replies = dict((cookie, data) for cookie, _, data in (client.reply(10) for _ in range(2)))
            self.assertEqual(replies, {1: content[:10], 2: content[600:610]})

    def a_write_right_behind_go_is_not_lost(self):
        """Its payload is longer than what the handshake reads at once."""
        image = self.sparse(MIB)
        data = bytes(range(256)) * 256
        with self.serve(image) as server, RawClient(server) as client:
            client.send(go() + write(data, cookie=8, offset=1) + request(READ, cookie=9, offset=MIB - 1, length=1))
            client.finish_go()
            replies = {client.receive(16) for _ in range(1)}
            self.assertEqual(len(replies), 1)
        self.assert_same_bytes(image.read_bytes()[1:1 + len(data)], data)

    def hundreds_of_requests_in_one_segment_are_all_answered(self):
        image = self.image(MIB)
        content = image.read_bytes()
        with self.serve(image) as server, RawClient.in_transmission(server) as client:
            client.send(b"".join(request(READ, cookie=i, offset=i * 1000, length=100) for i in range(1000)))
            for _ in range(1000):
                cookie, error, data = client.reply(100)
                self.assertEqual((error, data), (0, content[cookie * 1000:cookie * 1000 + 100]))

    def a_conversation_in_single_bytes_is_understood(self):
        image = self.image(MIB)
        with self.serve(image, tcp=True) as server, RawClient(server, flags=None) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            said = struct.pack(">I", FIXED_NEWSTYLE | NO_ZEROES) + go() + write(b"slow", cookie=1, offset=510)
            for byte in said:
                client.send(bytes([byte]))
            client.receive(18)
            client.finish_go()
            self.assertEqual(client.reply(), (1, 0, b""))
            self.assertEqual(client.ask(READ, 4, offset=510, length=4)[2], b"slow")

    def requests_split_in_two_at_every_byte_are_understood(self):
        image = self.image(MIB)
        said = write(b"1234567", cookie=1, offset=510) + request(READ, cookie=2, offset=509, length=9) + request(FLUSH, 3)
        with self.serve(image) as server, RawClient.in_transmission(server) as client:
            for split in range(len(said)):
                client.send(said[:split])
                time.sleep(0.001)
                client.send(said[split:])
                cookies = set()
                for _ in range(3):
                    magic, error, cookie = struct.unpack(">IIQ", client.receive(16))
                    self.assertEqual((magic, error), (0x67446698, 0))
                    cookies.add(cookie)
                    if cookie == 2:
                        client.receive(9)
                self.assertEqual(cookies, {1, 2, 3})

    def large_payloads_split_anywhere_arrive_whole(self):
        image = self.sparse(MIB)
        data = bytes(range(251)) * 400
        with self.serve(image) as server, RawClient.in_transmission(server) as client:
            for split in (1, 27, 28, 29, 4096, 32767, 32768, 32769, 65536, 100000, len(data), len(data) + 27):
                said = write(data, cookie=1, offset=split) + request(READ, cookie=2, offset=0, length=1)
                client.send(said[:split])
                time.sleep(0.005)
                client.send(said[split:])
                self.assertEqual(sum(len(client.receive(16)) for _ in range(2)) + len(client.receive(1)), 33)
                self.assert_same_bytes(client.ask(READ, len(data), offset=split, length=len(data))[2], data)

    # Requests

    def requests_of_no_length_are_answered(self):
        with self.serve(self.image(MIB)) as server, RawClient.in_transmission(server) as client:
            for what in (READ, 1, FLUSH, TRIM, WRITE_ZEROES):
                for offset in (0, 3, MIB):
                    self.assertEqual(client.ask(what, cookie=what, offset=offset), (what, 0, b""))

    def cookies_may_repeat(self):
        with self.serve(self.image(b"a" * MIB)) as server, RawClient.in_transmission(server) as client:
            for cookie in (0, 0xFFFFFFFFFFFFFFFF, 7):
                client.send(request(READ, cookie=cookie, length=5) * 100)
                for _ in range(100):
                    self.assertEqual(client.reply(5), (cookie, 0, b"aaaaa"))

    def a_flush_may_have_any_offset_and_length(self):
        with self.serve(self.image(MIB)) as server, RawClient.in_transmission(server) as client:
            self.assertEqual(client.ask(FLUSH, cookie=1, offset=(1 << 64) - 1, length=(1 << 32) - 1), (1, 0, b""))

    def a_read_error_has_no_data_behind_it(self):
        with self.serve(self.image(b"a" * MIB)) as server, RawClient.in_transmission(server) as client:
            client.send(request(READ, cookie=1, offset=MIB, length=4096) + request(READ, cookie=2, length=2))
            self.assertEqual({client.reply(2), client.reply(2)}, {(1, EINVAL, b""), (2, 0, b"aa")})

    def an_offset_that_would_wrap_is_refused(self):
        with self.serve(self.image(MIB)) as server, RawClient.in_transmission(server) as client:
            for offset in ((1 << 64) - 1, (1 << 64) - 4096, 1 << 63, MIB - 1):
                self.assertEqual(client.ask(READ, cookie=1, offset=offset, length=4096), (1, EINVAL, b""))

    # Good-bye

    def disc_lets_outstanding_requests_finish(self):
        image = self.sparse(16 * MIB)
        with self.serve(image) as server:
            with RawClient.in_transmission(server) as client:
                client.send(b"".join(write(bytes([i + 1]) * MIB, offset=i * MIB) for i in range(16)) + request(DISC))
                self.assertEqual(len(client.receive_rest()), 16 * 16)
            server.wait_for_log(": disconnected")
        self.assert_same_bytes(image.read_bytes(), b"".join(bytes([i + 1]) * MIB for i in range(16)))

    def nothing_behind_disc_is_done(self):
        image = self.image(bytes(MIB))
        with self.serve(image) as server, RawClient.in_transmission(server) as client:
            client.send(request(DISC) + write(b"late", cookie=4))
            self.assertEqual(client.receive_rest(), b"")
        self.assertEqual(image.read_bytes()[:4], bytes(4))

    def a_client_that_only_stops_sending_gets_its_replies(self):
        image = self.image(8 * MIB)
        for tcp in (False, True):
            with self.serve(image, tcp=tcp) as server, RawClient.in_transmission(server) as client:
                client.send(b"".join(request(READ, cookie=i, offset=i * MIB, length=MIB) for i in range(8)))
                client.socket.shutdown(socket.SHUT_WR)
                for _ in range(8):
                    cookie, _, data = client.reply(MIB)
                    self.assertEqual(data[:64 * KIB], image.read_bytes()[cookie * MIB:cookie * MIB + 64 * KIB])
                self.assertEqual(client.receive_rest(), b"")
                server.wait_for_log("closed the connection without NBD_CMD_DISC")


if __name__ == "__main__":
    served.main(Conversation)
