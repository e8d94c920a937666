#!/usr/bin/python3
"""Memory has a ceiling, whatever clients send or fail to read."""
import shutil
import tempfile
import time
from pathlib import Path

import served
from raw_client import NO_HOLE, READ, WRITE, WRITE_ZEROES, RawClient, request
from served import KIB, MIB

CONNECTIONS = 5
IN_FLIGHT = 8 * MIB


class Memory(served.Facts):
    def _serve(self):
        return self.serve(self.image(16 * MIB), "--max-in-flight", "8M", "--max-connections", CONNECTIONS)

    @staticmethod
    def _ceiling():
        # README: connections x (--max-in-flight + receive buffer), and the program itself.
        program = 32 * MIB if not served.is_sanitized() else 160 * MIB
        return CONNECTIONS * (IN_FLIGHT + 256 * KIB) + program

    def _assert_bounded_while_another_is_served(self, server):
        handle = server.connect()
        for offset in range(0, 16 * MIB, 512 * KIB):
            handle.pwrite(b"x" * 65536, offset)
            self.assertEqual(handle.pread(65536, offset), b"x" * 65536)
        handle.shutdown()
        self.assertLess(server.status("VmHWM"), self._ceiling())

    @staticmethod
    def _send_until_refused(client, data, total):
        """Sends `data` again and again, until the server has not taken any for a while; the bytes it took."""
        client.socket.setblocking(False)
        sent, patience_ends = 0, time.monotonic() + 0.5
        while sent < total and time.monotonic() < patience_ends:
            try:
                sent += client.socket.send(data[sent % len(data):])
                patience_ends = time.monotonic() + 0.5
            except BlockingIOError:
                time.sleep(0.01)
        client.socket.settimeout(20)
        return sent

    def clients_that_never_read_their_replies_are_not_read_from(self):
        asked = request(READ, length=MIB) * 1000
        with self._serve() as server:
            greedy = [RawClient.in_transmission(server) for _ in range(4)]
            for client in greedy:
                self.assertLess(self._send_until_refused(client, asked, 64 * MIB), 4 * MIB)
            self._assert_bounded_while_another_is_served(server)
            for client in greedy:
                client.close()

    def many_small_reads_without_reading_are_bounded_too(self):
        asked = request(READ, length=1) * 1000
        with self._serve() as server:
            greedy = RawClient.in_transmission(server)
            self.assertLess(self._send_until_refused(greedy, asked, 64 * MIB), 16 * MIB)
            self._assert_bounded_while_another_is_served(server)
            greedy.close()

    def a_client_that_reads_again_is_served_to_the_end(self):
        with self._serve() as server:
            slow = RawClient.in_transmission(server)
            slow.send(b"".join(request(READ, cookie=i, length=MIB) for i in range(64)))
            time.sleep(0.2)
            self.assertEqual(sorted(slow.reply(MIB)[0] for _ in range(64)), list(range(64)))
            slow.close()

    def writes_that_stall_half_way_hold_their_share_and_no_more(self):
        with self._serve() as server:
            stalled = [RawClient.in_transmission(server) for _ in range(4)]
            for client in stalled:
                client.send(request(WRITE, length=IN_FLIGHT, payload=bytes(IN_FLIGHT // 2)))
            self._assert_bounded_while_another_is_served(server)
            for client in stalled:
                client.close()

    def a_write_that_stalled_is_finished_when_the_rest_comes(self):
        with self._serve() as server:
            client = RawClient.in_transmission(server)
            client.send(request(WRITE, cookie=9, offset=3, length=MIB, payload=b"a" * 700000))
            self._assert_bounded_while_another_is_served(server)
            client.send(b"a" * (MIB - 700000))
            self.assertEqual(client.reply(), (9, 0, b""))
            self.assertEqual(client.ask(READ, payload=MIB, offset=3, length=MIB)[2], b"a" * MIB)
            client.close()

    def zeroes_that_have_to_be_written_wait_for_each_other_without_memory(self):
        # tmpfs knows no other way to keep a block allocated.
        folder = tempfile.mkdtemp(dir="/dev/shm", prefix="aionbd-")
        self.addCleanup(shutil.rmtree, folder)
        image = Path(folder, "disk.img")
        image.write_bytes(b"x" * 4 * MIB)
        count = 120
        asked = b"".join(request(WRITE_ZEROES, flags=NO_HOLE, cookie=at, offset=1, length=4 * MIB - 2)
                         for at in range(count))
        with self.serve(image, "--io", "buffered", "--max-in-flight", "8M", "--max-connections", CONNECTIONS) as server:
            clients = [RawClient.in_transmission(server) for _ in range(4)]
            for client in clients:
                client.send(asked)
            for client in clients:
                self.assertEqual(sorted(client.reply()[:2] for _ in range(count)), [(at, 0) for at in range(count)])
            with RawClient.in_transmission(server) as reader:
                self.assertEqual(reader.ask(READ, payload=4 * MIB, length=4 * MIB)[2], b"x" + bytes(4 * MIB - 2) + b"x")
            self.assertLess(server.status("VmHWM"), self._ceiling())

    def twenty_thousand_refused_writes_take_no_memory(self):
        refused = request(WRITE, offset=1 << 40, length=4096, payload=bytes(4096)) * 500
        with self._serve() as server:
            client = RawClient.in_transmission(server)
            for _ in range(40):
                client.send(refused)
                for _ in range(500):
                    self.assertEqual(client.reply()[1], 28)
            client.close()
            self._assert_bounded_while_another_is_served(server)


if __name__ == "__main__":
    served.main(Memory)
