#!/usr/bin/python3
"""Several connections to one disk: what MULTI_CONN promises, with one loop and with two."""
import re
import struct
from concurrent.futures import ThreadPoolExecutor

import served
from model import Model
from raw_client import FLUSH, READ, RawClient, write
from served import KIB, MIB

CONNECTIONS = 4


def together(work, arguments):
    """Runs work(argument) for each in a thread of its own; the first failure is the caller's."""
    with ThreadPoolExecutor(len(arguments)) as threads:
        return list(threads.map(work, arguments))


class SeveralConnections(served.Facts):
    # Unaligned writes into the same blocks

    def bytes_written_between_each_other_are_all_there(self):
        self._interleave("--threads", 1)

    @served.loops
    def bytes_written_between_each_other_are_all_there_on_2_loops(self):
        self._interleave("--threads", 2)

    def bytes_written_between_each_other_are_all_there_in_the_odd_tail(self):
        self._interleave("--threads", 1, size=20000 + 333)

    def _interleave(self, *options, size=24 * KIB, piece=7, rounds=3):
        """Connection k writes every fourth piece, all at once, with many requests in flight."""
        image = self.image(size)
        with self.serve(image, *options) as server:
            clients = [RawClient.in_transmission(server) for _ in range(CONNECTIONS)]
            for number in range(rounds):
                def work(k, number=number):
                    offsets = range(k * piece, size - piece + 1, CONNECTIONS * piece)
                    data = bytes([16 * (number + 1) + k]) * piece
                    for begin in range(0, len(offsets), 64):
                        batch = offsets[begin:begin + 64]
                        clients[k].send(b"".join(write(data, cookie=each, offset=each) for each in batch))
                        for _ in batch:
                            self.assertEqual(clients[k].reply()[1], 0)
                together(work, range(CONNECTIONS))
                content = clients[0].ask(READ, size, length=size)[2]
                pieces = size // piece
                wanted = b"".join(bytes([16 * (number + 1) + i % CONNECTIONS]) * piece for i in range(pieces))
                self.assert_same_bytes(content[:pieces * piece], wanted)
            for client in clients:
                client.close()
        self.assert_same_bytes(image.read_bytes(), content)

    def an_aligned_write_is_not_undone_by_an_unaligned_one_beside_it(self):
        self._aligned_beside_unaligned("--threads", 1)

    @served.loops
    def an_aligned_write_is_not_undone_by_an_unaligned_one_beside_it_on_2_loops(self):
        self._aligned_beside_unaligned("--threads", 2)

    def _aligned_beside_unaligned(self, *options):
        """One writes whole blocks, the other their first 100 bytes: the rest is always the first one's."""
        with self.serve(self.image(64 * KIB), *options) as server:
            whole, part = (RawClient.in_transmission(server) for _ in range(2))
            for number in range(1, 200):
                value = bytes([number])
                def write_whole(_, value=value):
                    whole.send(b"".join(write(value * 4096, offset=4096 * i) for i in range(4)))
                    return [whole.reply()[1] for _ in range(4)]
                def write_part(_):
                    part.send(b"".join(write(b"\xff" * 100, offset=4096 * i) for i in range(4)))
                    return [part.reply()[1] for _ in range(4)]
                together(lambda call: call(None), [write_whole, write_part])
                content = part.ask(READ, 16384, length=16384)[2]
                for i in range(4):
                    self.assertEqual(content[4096 * i + 100:4096 * (i + 1)], value * 3996, f"round {number}")
            whole.close()
            part.close()

    # Anything at all

    def random_requests_of_4_connections_equal_the_model(self):
        self._random_requests("--threads", 1)

    @served.loops
    def random_requests_of_4_connections_on_2_loops_equal_the_model(self):
        self._random_requests("--threads", 2)

    @served.loops
    def random_requests_of_4_connections_on_2_loops_of_buffered_io_equal_the_model(self):
        self._random_requests("--threads", 2, "--io", "buffered")

    def _random_requests(self, *options, size=MIB + 333, steps=250):
        """Each connection has a region of its own that begins and ends inside a block of another's."""
        image = self.image(size)
        borders = [0, 100001, 300007, 300500, size]
        with self.serve(image, *options) as server:
            models = [Model(image.read_bytes(), begin, end, seed=begin) for begin, end in zip(borders, borders[1:])]

            def work(model):
                handle = server.connect()
                for _ in range(steps):
                    model.step(handle)
                model.compare_all(handle)
                handle.shutdown()
            together(work, models)
        wanted = b"".join(bytes(model.content[model.begin:model.end]) for model in models)
        self.assert_same_bytes(image.read_bytes(), wanted)

    # Flush

    def what_one_wrote_another_reads(self):
        with self.serve(self.image(MIB + 333)) as server:
            writer, reader = server.connect(), server.connect()
            for i in range(100):
                for offset in (1000, MIB + 300):
                    writer.pwrite(bytes([i]) * 20, offset)
                    self.assertEqual(reader.pread(20, offset), bytes([i]) * 20)

    def a_flush_covers_writes_of_another_connection(self):
        """It asks the kernel, although its own connection has written nothing; and not before the write is done."""
        self.need("strace")
        trace = self.folder / "trace"
        image = self.image(MIB)
        with self.serve(image, "--threads", 2, environment={"ASAN_OPTIONS": "detect_leaks=0"}, prefix=[
                "strace", "-f", "-o", trace, "-e", "trace=io_submit,sendmsg"]) as server:
            writer, other = (RawClient.in_transmission(server) for _ in range(2))
            writer.send(write(b"x" * 4096, cookie=1))
            self.assertEqual(writer.reply(), (1, 0, b""))
            self.assertEqual(other.ask(FLUSH, cookie=2), (2, 0, b""))
            writer.close()
            other.close()
        calls = re.findall(r"IOCB_CMD_PWRITE|IOCB_CMD_FDSYNC", trace.read_text())
        self.assertEqual(calls, ["IOCB_CMD_PWRITE", "IOCB_CMD_FDSYNC"])

    def concurrent_flushes_are_all_answered(self):
        with self.serve(self.image(MIB)) as server:
            clients = [RawClient.in_transmission(server) for _ in range(CONNECTIONS)]

            def work(client):
                for i in range(50):
                    client.send(write(b"f" * 100, cookie=2 * i, offset=i) +
                                struct.pack(">IHHQQI", 0x25609513, 0, FLUSH, 2 * i + 1, 0, 0))
                return sorted(client.reply()[:2] for _ in range(100))
            for replies in together(work, clients):
                self.assertEqual(replies, [(i, 0) for i in range(100)])
            for client in clients:
                client.close()


if __name__ == "__main__":
    served.main(SeveralConnections)
