#!/usr/bin/python3
"""Many connections and busy ones: all are answered, evenly, and nobody starves beside somebody greedy. Counted in
requests and not in seconds: what one got while others got theirs."""
import selectors
import statistics
import struct
import threading

import served
from crowd import allow_descriptors
from raw_client import READ, RawClient, request, write
from served import KIB, MIB

CONNECTIONS, BUSY = 1000, 64
DEPTH = 4          # requests of a busy one at once
EACH = 100         # requests of a busy one, on the average
MULTIPLE = 3       # storage/README: no busy one waits longer than so many times the median; 1.1 to 1.5 were seen
QUEUE = 64         # storage/README: a small request waits for so many large ones at most
SMALL = 200        # requests of the small client
LARGE = MIB        # bytes of one request of the greedy one


class Busy:
    """Keeps DEPTH requests under way: reads of what it wrote, and writes."""

    def __init__(self, server, number):
        self._client = RawClient.in_transmission(server)
        self._offset = number * 64 * KIB
        self._received = bytearray()
        self._asked = 0
        self._lengths = {}
        self.answered = 0
        self.socket = self._client.socket

    def ask(self):
        self._asked += 1
        is_read = self._asked % 2 == 0
        self._lengths[self._asked] = 4 * KIB if is_read else 0
        offset = self._offset + self._asked % 16 * 4 * KIB
        self._client.send(request(READ, self._asked, offset, 4 * KIB) if is_read
                          else write(bytes([self._asked % 251]) * 4 * KIB, self._asked, offset))

    def hear(self):
        """How many were answered."""
        self._received += self.socket.recv(1 << 17)
        count = 0
        while len(self._received) >= 16:
            magic, error, cookie = struct.unpack(">IIQ", self._received[:16])
            length = 16 + self._lengths[cookie]
            if len(self._received) < length:
                break
            assert (magic, error) == (0x67446698, 0), (magic, error)
            del self._received[:length], self._lengths[cookie]
            count += 1
        self.answered += count
        return count

    def under_way(self):
        return len(self._lengths)

    def close(self):
        self._client.close()


class Greedy(threading.Thread):
    """As much as one connection may have under way, of large requests, without end."""

    def __init__(self, server, what):
        super().__init__()
        self._client = RawClient.in_transmission(server)
        self._what, self._length = what, LARGE
        self._is_over = threading.Event()
        self.answered = 0
        self.failure = None

    def _ask(self, number):
        offset = number % 48 * LARGE
        if self._what == READ:
            return request(READ, number, offset, LARGE)
        return write(b"g" * LARGE, number, offset)

    def run(self):
        try:
            # Writes need a sender of their own, or both sides would wait for each other.
            if self._what != READ:
                threading.Thread(target=self._say_without_end, daemon=True).start()
            else:
                self._client.send(b"".join(self._ask(number) for number in range(128)))
            room = memoryview(bytearray(16 + LARGE))
            length = 16 + LARGE if self._what == READ else 16
            while not self._is_over.is_set():
                at = 0
                while at < length:
                    at += self._client.socket.recv_into(room[at:length])
                assert struct.unpack(">II", room[:8]) == (0x67446698, 0)
                self.answered += 1
                if self._what == READ:
                    self._client.send(self._ask(self.answered))
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def _say_without_end(self):
        number = 0
        try:
            while not self._is_over.is_set():
                self._client.send(self._ask(number))
                number += 1
        except OSError:
            pass  # It is over.

    def stop(self):
        self._is_over.set()
        self.join(served.PATIENCE_S)
        self._client.close()


class Fairness(served.Facts):
    def a_thousand_connections_of_which_64_are_busy_are_served_evenly(self):
        self._evenly("--threads", 1)

    @served.loops
    def a_thousand_connections_of_which_64_are_busy_are_served_evenly_on_2_loops(self):
        self._evenly("--threads", 2)

    def _evenly(self, *options):
        if not allow_descriptors(CONNECTIONS):
            self.skipTest(f"a process may not open {CONNECTIONS} files here (ulimit -n)")
        limit = CONNECTIONS + 10
        with self.serve(self.sparse(64 * MIB), "--max-connections", limit, "--max-per-address", limit, *options) as server:
            others = [RawClient.in_transmission(server) for _ in range(CONNECTIONS - BUSY)]
            busy = [Busy(server, number) for number in range(BUSY)]
            before = server.status("VmRSS")
            self._work(busy, BUSY * EACH)
            median, least = statistics.median(each.answered for each in busy), min(each.answered for each in busy)
            grown = server.status("VmRSS") - before
            print(f"{median} requests in the middle, {least} at the least: {median / least:.2f} times the wait; "
                  f"{grown >> 10} KiB more for the busy ones, {before >> 20} MiB with {CONNECTIONS} connections")
            self.assertLessEqual(median, MULTIPLE * least)
            self._work(busy, 0)
            self.assertEqual([each.under_way() for each in busy], [0] * BUSY)
            for other in others:
                other.send(request(READ, 7, length=512))
            for other in others:
                self.assertEqual(other.reply(512)[:2], (7, 0))
            if not served.is_sanitized():
                # For each loop a chunk of the pool, and for each busy one its receive buffer.
                self.assertLess(grown, 2 * 32 * MIB + BUSY * 320 * KIB)
            for each in [*busy, *others]:
                each.close()

    def _work(self, busy, count):
        """Until `count` requests are answered; with none, until all are."""
        with selectors.DefaultSelector() as waiting:
            for each in busy:
                waiting.register(each.socket, selectors.EVENT_READ, each)
                while count != 0 and each.under_way() < DEPTH:
                    each.ask()
            left = count if count != 0 else sum(each.under_way() for each in busy)
            while left > 0:
                ready = waiting.select(served.PATIENCE_S)
                self.assertTrue(ready, f"{left} requests without a reply")
                for key, _ in ready:
                    answered = key.data.hear()
                    left -= answered
                    for _ in range(answered if count != 0 else 0):
                        key.data.ask()

    # One with large requests and many of them, one with small ones and one at a time

    def a_small_reader_does_not_starve_beside_a_greedy_reader(self):
        self._beside(READ, tcp=False)

    def a_small_reader_does_not_starve_beside_a_greedy_reader_over_tcp(self):
        self._beside(READ, tcp=True)

    def a_small_reader_does_not_starve_beside_a_greedy_writer(self):
        self._beside(1, tcp=False)

    def _beside(self, what, tcp):
        with self.serve(self.image(64 * MIB), tcp=tcp) as server:
            greedy = Greedy(server, what)
            greedy.start()
            with RawClient.in_transmission(server) as small:
                served.wait_until(lambda: greedy.answered > QUEUE or greedy.failure, served.PATIENCE_S, "the greedy one")
                before, most = greedy.answered, 0
                for number in range(SMALL):
                    at = greedy.answered
                    self.assertEqual(small.ask(READ, 4 * KIB, cookie=number, offset=48 * MIB, length=4 * KIB)[:2], (number, 0))
                    most = max(most, greedy.answered - at)
                meanwhile = greedy.answered - before
            greedy.stop()
            self.assertIsNone(greedy.failure)
            self.assertGreater(meanwhile, 0)
            print(f"{meanwhile / SMALL:.1f} large requests for each small one, {most} at the most")
            self.assertLess(meanwhile, QUEUE * SMALL)


if __name__ == "__main__":
    served.main(Fairness)
