#!/usr/bin/python3
"""Extended headers, with a client of the tests' own."""
import os
import random
import struct

import served
from extended_client import (BLOCK_STATUS, BLOCK_STATUS_PAYLOAD, DF, EXTENDED_HEADERS, FAST_ZERO, FUA, HOLE, NO_HOLE,
                             REQ_ONE, SEND_DF, STRUCTURED_REPLY, ZERO, ExtendedClient, NbdError)
from raw_client import ACK, EINVAL, ENOSPC, EPERM, READ, WRITE, RawClient, option
from served import GIB, KIB, MIB

TIB = GIB << 10
ODD = 10 * MIB + 333


class Extended(served.Facts):
    def _assert_refused(self, error, do, *arguments, **more):
        with self.assertRaises(NbdError) as refused:
            do(*arguments, **more)
        self.assertEqual(refused.exception.number, error)
        self.assertNotEqual(refused.exception.text, "")

    # Handshake

    def extended_headers_take_the_place_of_structured_replies(self):
        with self.serve(self.image(MIB)) as server, RawClient(server) as client:
            client.send(option(EXTENDED_HEADERS) + option(STRUCTURED_REPLY))
            self.assertEqual(client.option_reply()[0], ACK)
            self.assertEqual(client.option_reply()[0], 0x8000000A)

    def the_flags_say_what_extended_headers_bring(self):
        with self.serve(self.image(MIB)) as server:
            with ExtendedClient(server) as client:
                self.assertEqual(client.flags & (SEND_DF | BLOCK_STATUS_PAYLOAD), SEND_DF | BLOCK_STATUS_PAYLOAD)
                self.assertEqual(list(client.contexts), [b"base:allocation"])
            with ExtendedClient(server, contexts=()) as client:
                self.assertEqual(client.flags & (SEND_DF | BLOCK_STATUS_PAYLOAD), SEND_DF)
                self._assert_refused(EINVAL, client.block_status, 0, MIB)

    # Data

    def what_is_written_is_read(self):
        image = self.sparse(ODD)
        content = random.Random(1).randbytes(ODD)
        with self.serve(image) as server, ExtendedClient(server) as client:
            for at in range(0, ODD, 999_999):
                client.write(at, content[at:at + 999_999], FUA if at % 2 else 0)
            client.flush()
            for flags in (0, DF):
                self.assert_same_bytes(client.read(0, ODD, flags)[0], content)
                self.assert_same_bytes(client.read(12345, MIB, flags)[0], content[12345:12345 + MIB])
            self.assertEqual(client.read(ODD, 0), (b"", 0))
        self.assert_same_bytes(image.read_bytes(), content)

    def holes_are_not_sent(self):
        image = self.sparse(32 * MIB)
        with open(image, "r+b") as opened:
            opened.seek(5 * MIB)
            opened.write(os.urandom(64 * KIB))
        with self.serve(image) as server, ExtendedClient(server) as client:
            data, carried = client.read(0, 32 * MIB)
            self.assert_same_bytes(data, image.read_bytes())
            self.assertEqual(carried, 64 * KIB)
            self.assertEqual(client.read(0, 32 * MIB, DF), (data, 32 * MIB))
            self.assertEqual(client.read(4 * MIB, MIB), (bytes(MIB), 0))

    def holes_are_filled_by_writes_and_made_by_trims(self):
        with self.serve(self.sparse(8 * MIB)) as server, ExtendedClient(server) as client:
            client.write(3 * MIB, b"x" * MIB)
            self.assertEqual(client.read(2 * MIB, 3 * MIB), (bytes(MIB) + b"x" * MIB + bytes(MIB), MIB))
            client.trim(3 * MIB, MIB)
            self.assertEqual(client.read(2 * MIB, 3 * MIB), (bytes(3 * MIB), 0))

    # Lengths of 64 bits

    def zeroes_and_trims_of_terabytes_are_one_request_each(self):
        image = self.sparse(8 * TIB)
        with open(image, "r+b") as opened:
            for at in (0, 5 * GIB, TIB, 8 * TIB - 4096):
                opened.seek(at)
                opened.write(b"x" * 4096)
        hole = HOLE | ZERO
        with self.serve(image) as server, ExtendedClient(server) as client:
            self.assertEqual(len(client.whole_map()), 7)
            client.zeroes(4096, TIB, FAST_ZERO)
            self.assertEqual(client.whole_map(), [(4096, 0), (8 * TIB - 8192, hole), (4096, 0)])
            client.trim(0, 8 * TIB, FUA)
            self.assertEqual(client.block_status(0, 8 * TIB), [(8 * TIB, hole)])
            self.assertEqual(client.block_status(1, 7 * TIB, REQ_ONE), [(7 * TIB, hole)])

    def lengths_of_64_bits_do_not_wrap(self):
        with self.serve(self.sparse(MIB)) as server, ExtendedClient(server) as client:
            for offset, length in ((0, MIB + 1), (1, MIB), (0, 1 << 63), (1, (1 << 64) - 1), (MIB, 1 << 32)):
                self._assert_refused(EINVAL, client.trim, offset, length)
                self._assert_refused(ENOSPC, client.zeroes, offset, length)
                self._assert_refused(EINVAL, client.block_status, offset, length)
                self._assert_refused(EINVAL, client.block_status_by_payload, offset, length, 1)
                self._assert_refused(EINVAL, client.ask, READ, offset, length)
            self.assertEqual(client.read(0, 512), (bytes(512), 512))

    # Refusals

    def a_refused_write_is_drained(self):
        with self.serve(self.image(MIB), "--read-only") as server, ExtendedClient(server) as client:
            for length in (1, 4096, 32 * MIB):
                self._assert_refused(EPERM, client.write, 0, bytes(length))
                self.assertEqual(len(client.read(0, 1000)[0]), 1000)

    def a_write_without_payload_len_as_qemu_sends_it_is_a_write(self):
        with self.serve(self.image(MIB)) as server, ExtendedClient(server) as client:
            client.ask(WRITE, 7, 512, 0, b"q" * 512)
            self.assertEqual(client.read(7, 512)[0], b"q" * 512)
            self._assert_refused(ENOSPC, client.ask, WRITE, MIB, 4096, 0, bytes(4096))
            self.assertEqual(len(client.read(0, 1000)[0]), 1000)

    # BLOCK_STATUS

    def unwritten_space_is_zero_and_no_hole(self):
        image = self.sparse(8 * MIB)
        with open(image, "r+b") as opened:
            os.posix_fallocate(opened.fileno(), MIB, MIB)
        with self.serve(image) as server, ExtendedClient(server) as client:
            client.write(4 * MIB, b"x" * MIB)
            client.zeroes(6 * MIB, MIB, NO_HOLE)
            hole = HOLE | ZERO
            self.assertEqual(client.block_status(0, 8 * MIB), [
                (MIB, hole), (MIB, ZERO), (2 * MIB, hole), (MIB, 0), (MIB, hole), (MIB, ZERO), (MIB, hole)])

    def a_payload_may_name_the_context(self):
        with self.serve(self.sparse(MIB)) as server, ExtendedClient(server) as client:
            [context] = client.contexts.values()
            self.assertEqual(client.block_status_by_payload(0, MIB, context), [(MIB, HOLE | ZERO)])
            self._assert_refused(EINVAL, client.block_status_by_payload, 0, MIB, context + 1)
            self._assert_refused(EINVAL, client.block_status_by_payload, 0, MIB, context, context)
            self._assert_refused(EINVAL, client.block_status_by_payload, 0, MIB)
            self._assert_refused(EINVAL, client.ask, BLOCK_STATUS, 0, 300_000, 32, bytes(300_000))
            self.assertEqual(client.block_status(0, MIB), [(MIB, HOLE | ZERO)])

    def reads_agree_with_block_status_after_random_changes(self):
        generator = random.Random(7)
        expected = bytearray(ODD)
        with self.serve(self.sparse(ODD)) as server, ExtendedClient(server) as client:
            for _ in range(60):
                offset = generator.randrange(ODD)
                length = generator.randrange(1, min(ODD - offset, 2 * MIB) + 1)
                if generator.random() < 0.5:
                    data = generator.randbytes(length)
                    client.write(offset, data)
                else:
                    data = bytes(length)
                    client.zeroes(offset, length, generator.choice((0, NO_HOLE)))
                expected[offset:offset + length] = data
                at = 0
                for length, state in client.whole_map():
                    if state & ZERO:
                        self.assertFalse(any(expected[at:at + length]))
                    at += length
                self.assertEqual(at, ODD)
                self.assert_same_bytes(client.read(0, ODD)[0], bytes(expected))

    # Several at once

    def replies_of_many_requests_are_never_mixed_up(self):
        image = self.image(16 * MIB)
        content = image.read_bytes()
        with self.serve(image) as server, ExtendedClient(server) as client:
            wanted = {client.request(0, i * 250_000 + i, 200_000): i * 250_000 + i for i in range(60)}
            while wanted:
                flags, kind, cookie, told, payload = client.chunk()
                offset = wanted.pop(cookie)
                self.assertEqual((flags, kind, told, payload[:8]), (1, 1, offset, struct.pack(">Q", offset)))
                self.assertEqual(payload[8:], content[offset:offset + 200_000])


if __name__ == "__main__":
    served.main(Extended)
