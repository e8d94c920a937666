#!/usr/bin/python3
"""Many connections and busy ones: all are answered, evenly, and nobody starves beside somebody greedy. Waits are counted
in requests and not in seconds: what was answered between somebody's question and its answer. So a machine that stands still,
or is slow, counts for nobody, and who waits while others are served, counts."""
import selectors
import statistics
import struct

import served
from crowd import allow_descriptors
from raw_client import READ, WRITE, RawClient, request, write
from served import KIB, MIB

CONNECTIONS, BUSY = 1000, 64
DEPTH = 4          # requests of a busy one at once
EACH = 100         # requests of a busy one, on the average
MULTIPLE = 8       # storage/README: no busy one ever waits longer than so many times the median; 1.5 to 3.6 were seen
QUEUE = 64         # as many large requests of one connection are under way at once
QUEUES = 2         # storage/README: a small request waits for so many queues of large ones at most; one was seen
SMALL = 200        # requests of the small client
LARGE = MIB        # bytes of one request of the greedy one


class Clock:
    """Ticks with every answer of a loop, whose ever."""

    def __init__(self):
        self.now = 0


class Busy:
    """Keeps DEPTH requests under way: reads of what it wrote, and writes."""

    def __init__(self, server, number, clock):
        self._client = RawClient.in_transmission(server)
        self._offset = number * 64 * KIB
        self._received = bytearray()
        self._asked = 0
        self._lengths, self._asked_at = {}, {}
        self._clock = clock
        self.waits = []
        self.socket = self._client.socket

    def ask(self):
        self._asked += 1
        is_read = self._asked % 2 == 0
        self._lengths[self._asked] = 4 * KIB if is_read else 0
        self._asked_at[self._asked] = self._clock.now
        offset = self._offset + self._asked % 16 * 4 * KIB
        self._client.send(request(READ, self._asked, offset, 4 * KIB) if is_read
                          else write(bytes([self._asked % 251]) * 4 * KIB, self._asked, offset))

    def hear(self):
        """How many were answered."""
        more = self.socket.recv(1 << 17)
        assert more != b"", "the server closed"
        self._received += more
        count = 0
        while len(self._received) >= 16:
            magic, error, cookie = struct.unpack(">IIQ", self._received[:16])
            length = 16 + self._lengths[cookie]
            if len(self._received) < length:
                break
            assert (magic, error) == (0x67446698, 0), (magic, error)
            del self._received[:length], self._lengths[cookie]
            self._clock.now += 1
            self.waits.append(self._clock.now - self._asked_at.pop(cookie))
            count += 1
        return count

    def under_way(self):
        return len(self._lengths)

    def longest(self):
        """Of its waits, those that are not over yet included."""
        return max([*self.waits, *(self._clock.now - began for began in self._asked_at.values())])

    def close(self):
        self._client.close()


class Greedy:
    """As much as one connection may have under way, of large requests, without end. It takes a little at a time, so that
    whoever shares the thread with it gets a turn."""

    def __init__(self, server, what):
        self._client = RawClient.in_transmission(server)
        self._client.socket.setblocking(False)
        self._is_reader = what == READ
        self._unsent = memoryview(b"")
        self._room = memoryview(bytearray(16 + LARGE))
        self._have, self._asked = 0, 0
        self.answered = 0
        self.socket = self._client.socket

    def wants(self):
        may_ask = not self._is_reader or self._asked - self.answered < 2 * QUEUE or len(self._unsent) != 0
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if may_ask else 0)

    def ask(self):
        if not self._unsent:
            offset = self._asked % 48 * LARGE
            self._unsent = memoryview(request(READ, self._asked, offset, LARGE) if self._is_reader
                                      else write(b"g" * LARGE, self._asked, offset))
            self._asked += 1
        self._unsent = self._unsent[self.socket.send(self._unsent):]

    def hear(self):
        length = 16 + LARGE if self._is_reader else 16
        more = self.socket.recv_into(self._room[self._have:length])
        assert more != 0, "the server closed"
        self._have += more
        if self._have < length:
            return
        assert struct.unpack(">II", self._room[:8]) == (0x67446698, 0)
        self._have = 0
        self.answered += 1

    def close(self):
        self._client.close()


class Fairness(served.Facts):
    def a_thousand_connections_of_which_64_are_busy_are_served_evenly(self):
        self._evenly(1)

    @served.loops
    def a_thousand_connections_of_which_64_are_busy_are_served_evenly_on_2_loops(self):
        self._evenly(2)

    def _evenly(self, loops):
        if not allow_descriptors(CONNECTIONS):
            self.skipTest(f"a process may not open {CONNECTIONS} files here (ulimit -n)")
        limit = CONNECTIONS + 10
        with self.serve(self.sparse(64 * MIB), "--max-connections", limit, "--max-per-address", limit, "--threads", loops) as server:
            others = [RawClient.in_transmission(server) for _ in range(CONNECTIONS - BUSY)]
            # Connections are dealt to the loops in turn. How the system divides its processors among loops is not ours.
            clocks = [Clock() for _ in range(loops)]
            busy = [Busy(server, number, clocks[number % loops]) for number in range(BUSY)]
            before = server.status("VmRSS")
            self._work(busy, lambda: min(clock.now for clock in clocks) < BUSY * EACH // loops, asking=True)
            grown = server.status("VmRSS") - before
            print(f"{grown >> 10} KiB more for the busy ones, {before >> 20} MiB with {CONNECTIONS} connections")
            for loop in range(loops):
                self._expect_even_waits(busy[loop::loops])
            self._work(busy, lambda: any(each.under_way() for each in busy), asking=False)
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

    def _expect_even_waits(self, busy):
        median = statistics.median(wait for each in busy for wait in each.waits)
        longest = [each.longest() for each in busy]
        print(f"waits in answers: {median} in the middle, {max(longest)} at the longest, {max(longest) / median:.2f} times that")
        for number, wait in enumerate(longest):
            self.assertLessEqual(wait, MULTIPLE * median, f"connection {number}")

    def _work(self, busy, goes_on, asking):
        """As long as it `goes_on`, with new requests or only until those under way are answered."""
        with selectors.DefaultSelector() as waiting:
            for each in busy:
                waiting.register(each.socket, selectors.EVENT_READ, each)
                while asking and each.under_way() < DEPTH:
                    each.ask()
            while goes_on():
                ready = waiting.select(served.PATIENCE_S)
                self.assertTrue(ready, f"{sum(each.under_way() for each in busy)} requests without a reply")
                for key, _ in ready:
                    answered = key.data.hear()
                    for _ in range(answered if asking else 0):
                        key.data.ask()

    # One with large requests and many of them, one with small ones and one at a time

    def a_small_reader_does_not_starve_beside_a_greedy_reader(self):
        self._beside(READ, tcp=False)

    def a_small_reader_does_not_starve_beside_a_greedy_reader_over_tcp(self):
        self._beside(READ, tcp=True)

    def a_small_reader_does_not_starve_beside_a_greedy_writer(self):
        self._beside(WRITE, tcp=False)

    def _beside(self, what, tcp):
        with self.serve(self.image(64 * MIB), tcp=tcp) as server:
            greedy, small = Greedy(server, what), RawClient.in_transmission(server)
            waits = self._waits_beside(greedy, small)
            print(f"{statistics.mean(waits):.1f} large requests for each small one, {max(waits)} at the most")
            self.assertGreater(sum(waits), 0)
            self.assertLessEqual(max(waits), QUEUES * QUEUE)
            greedy.close()
            small.close()

    def _waits_beside(self, greedy, small):
        """Of each small request: how many large ones were answered until it was."""
        waits, asked_at, received = [], None, bytearray()
        with selectors.DefaultSelector() as waiting:
            waiting.register(small.socket, selectors.EVENT_READ)
            waiting.register(greedy.socket, greedy.wants())
            while len(waits) < SMALL:
                if asked_at is None and greedy.answered > QUEUE:
                    asked_at = greedy.answered
                    small.send(request(READ, len(waits), 48 * MIB, 4 * KIB))
                ready = {key.fileobj: events for key, events in waiting.select(served.PATIENCE_S)}
                self.assertTrue(ready, f"after {len(waits)} small requests nothing is answered")
                if small.socket in ready:
                    more = small.socket.recv(16 + 4 * KIB)
                    self.assertNotEqual(more, b"", "the server closed")
                    received += more
                if len(received) == 16 + 4 * KIB:
                    self.assertEqual(struct.unpack(">IIQ", received[:16]), (0x67446698, 0, len(waits)))
                    waits.append(greedy.answered - asked_at)
                    asked_at = None
                    received.clear()
                events = ready.get(greedy.socket, 0)
                if events & selectors.EVENT_READ:
                    greedy.hear()
                if events & selectors.EVENT_WRITE:
                    greedy.ask()
                waiting.modify(greedy.socket, greedy.wants())
        return waits


if __name__ == "__main__":
    served.main(Fairness)
