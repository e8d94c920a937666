#!/usr/bin/python3
"""Rule 36 with real sockets and a real disk, one that can be told to stand still: what a client said on a connection that
it has lost does not overtake what it says on its next one; and who hangs up, or says no more and does not read, keeps new
clients waiting once, and not for long."""
import fcntl
import functools
import random
import socket
import struct
import termios
import time

import served
from disks import DiskFacts, DiskThatStands
from raw_client import READ, RawClient, request, write
from served import KIB, MIB
from tls_keys import Keys, TlsClient

LENGTH = 4 * KIB
LAST = 200
CALLED_OFF = "unfinished requests of clients that left"
# So many requests of a client at once; the rest of what it says waits in its session, or nobody has read it yet.
NARROW = ("--queue-depth", 2)
# So long the disk stands on: time for a server to take up what it must not yet, and less than its patience.
TAKING_S = 0.2


def block_of(value):
    return bytes([value]) * LENGTH


# --- How a client dies --------------------------------------------------------------------------------------------

def wait_until_delivered(client):
    """All that was sent has reached the other machine, though not the server. A Unix socket has nothing in between."""
    if client.socket.family == socket.AF_UNIX:
        return
    served.wait_until(lambda: struct.unpack("i", fcntl.ioctl(client.socket, termios.TIOCOUTQ, bytes(4)))[0] == 0,
                      served.PATIENCE_S, "the last bytes' arrival")


def close(client):
    wait_until_delivered(client)
    client.close()


def reset(client):
    wait_until_delivered(client)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def say_no_more(client):
    client.socket.shutdown(socket.SHUT_WR)
    wait_until_delivered(client)


DEATHS = (close, reset, say_no_more)


class Fence(DiskFacts):
    def _left_behind(self, connect, die, offset, values=range(1, 13)):
        """A client that has lost its connection with these writes to one place under way, most of which nobody has read."""
        client = connect()
        client.send(b"".join(write(block_of(value), value, offset) for value in values))
        die(client)
        return client

    def _expect_at(self, client, offset, value):
        self.assert_same_bytes(client.ask(READ, LENGTH, offset=offset, length=LENGTH)[2], block_of(value))

    @staticmethod
    def _wait_for_connections(server, count, without):
        """Until the server has so many descriptors more than it had without any."""
        served.wait_until(lambda: server.descriptors() == without + count, served.PATIENCE_S, "the end of the dead")

    # Order

    @served.loops
    @served.need("loop_devices")
    def rule_36_what_a_lost_connection_left_behind_does_not_overtake_the_next_one(self):
        self._is_not_overtaken()

    @served.loops
    @served.need("loop_devices")
    def rule_36_what_a_lost_connection_left_behind_does_not_overtake_the_next_one_over_tcp(self):
        self._is_not_overtaken(tcp=True)

    @served.need("loop_devices")
    def rule_36_what_a_lost_connection_left_behind_does_not_overtake_the_next_one_over_tls(self):
        keys = Keys(self.sockets)
        self._is_not_overtaken(*keys.options(), tcp=True, kind=functools.partial(
            TlsClient.in_transmission, context=keys.context()))

    def _is_not_overtaken(self, *options, kind=RawClient.in_transmission, **how):
        disk = DiskThatStands(self)
        with self.serve(disk.path, "--threads", 2, *NARROW, *options, **how) as server:
            alone = server.descriptors()
            for number, die in enumerate(DEATHS):
                with self.subTest(die.__name__):
                    offset = number * 64 * KIB
                    with disk.standing():
                        dead = self._left_behind(functools.partial(kind, server), die, offset)
                        client = kind(server)
                        client.send(write(block_of(LAST), 1, offset))
                        time.sleep(TAKING_S)
                    self.assertEqual(client.reply(), (1, 0, b""))
                    self._expect_at(client, offset, LAST)
                    self._wait_for_connections(server, 1, alone)
                    self._expect_at(client, offset, LAST)
                    client.close()
                    dead.close()
                    self._wait_for_connections(server, 0, alone)

    @served.need("loop_devices")
    def rule_36_a_chain_of_lost_connections_is_kept_in_order(self):
        disk = DiskThatStands(self)
        with self.serve(disk.path, "--threads", 2, *NARROW, tcp=True) as server:
            alone = server.descriptors()
            connect = functools.partial(RawClient.in_transmission, server)
            with disk.standing():
                dead = [self._left_behind(connect, DEATHS[number % 3], 0, range(10 * number + 1, 10 * number + 6))
                        for number in range(6)]
                client = connect()
                client.send(write(block_of(LAST), 1, 0))
                time.sleep(TAKING_S)
            self.assertEqual(client.reply(), (1, 0, b""))
            self._expect_at(client, 0, LAST)
            self._wait_for_connections(server, 1, alone)
            self._expect_at(client, 0, LAST)
            for each in (client, *dead):
                each.close()

    @served.need("loop_devices")
    def a_disk_that_stands_keeps_new_clients_waiting_once_and_what_was_left_behind_is_called_off(self):
        disk = DiskThatStands(self)
        for number, tcp in enumerate((False, True)):
            with self.subTest(tcp=tcp), self.serve(disk.path, "--threads", 2, *NARROW, tcp=tcp) as server:
                self._is_called_off(disk, server, number * 512 * KIB)

    def _is_called_off(self, disk, server, base):
        alone = server.descriptors()
        with disk.standing():
            dead = RawClient.in_transmission(server)
            # Two that are begun, and others behind them.
            dead.send(write(block_of(1), 1, base) + write(block_of(2), 2, base))
            dead.send(b"".join(write(block_of(value), value, base + value * LENGTH) for value in range(3, 9)))
            say_no_more(dead)
            client = RawClient.in_transmission(server)
            client.send(write(block_of(LAST), 1, base))
            server.wait_for_log(CALLED_OFF)
            # It is cut off although the disk still has requests of its, and nobody else waits for them.
            self.assertEqual(dead.receive_rest(), b"")
            after = RawClient.in_transmission(server)
            after.send(write(block_of(LAST - 1), 1, base + LENGTH))
        for each in (client, after):
            self.assertEqual(each.reply(), (1, 0, b""))
        self._wait_for_connections(server, 2, alone)
        self._expect_at(client, base, LAST)
        self._expect_at(client, base + LENGTH, LAST - 1)
        for value in range(3, 9):
            self._expect_at(client, base + value * LENGTH, 0)
        self.assertEqual(server.log().count(CALLED_OFF), 1)
        for each in (dead, client, after):
            each.close()

    # On a disk that goes on, and many times

    @served.loops
    def rule_36_clients_that_come_back_at_once_read_what_they_wrote_last(self):
        rng = random.Random(36)
        for tcp in (False, True):
            with self.subTest(tcp=tcp), self.serve(self.image(MIB), "--queue-depth", 1, "--threads", 2, tcp=tcp) as server:
                alone = server.descriptors()
                connect = functools.partial(RawClient.in_transmission, server)
                for number in range(50):
                    offset = rng.randrange(64) * 512
                    dead = [self._left_behind(connect, rng.choice(DEATHS), offset, range(1, rng.randrange(2, 12)))
                            for _ in range(rng.randrange(1, 3))]
                    with connect() as client:
                        client.send(write(block_of(100 + number), 1, offset))
                        self.assertEqual(client.reply(), (1, 0, b""))
                        self._expect_at(client, offset, 100 + number)
                        self._wait_for_connections(server, 1, alone)
                        self._expect_at(client, offset, 100 + number)
                    for each in dead:
                        each.close()
                    self._wait_for_connections(server, 0, alone)

    # Those who hang up at will

    def who_says_no_more_and_does_not_read_keeps_new_clients_waiting_once(self):
        for tcp in (False, True):
            with self.subTest(tcp=tcp), self.serve(self.image(MIB), "--threads", 1, *NARROW, tcp=tcp) as server:
                stuck = [self._stuck(server) for _ in range(5)]
                for each in stuck:
                    say_no_more(each)
                for number in range(5):
                    with RawClient.in_transmission(server) as client:
                        client.send(write(block_of(number), 1))
                        self.assertEqual(client.reply(), (1, 0, b""))
                # One client has waited, and for all of them at once.
                self.assertEqual(server.log().count(CALLED_OFF), 1)
                for each in stuck:
                    each.receive_rest()
                    each.close()

    def clients_that_go_on_hanging_up_keep_nobody_waiting_who_was_there_before_them(self):
        """Each of them comes while another waits, until that one is answered."""
        many = ("--max-connections", 512, "--max-per-address", 512)
        with self.serve(self.image(MIB), "--threads", 1, *many, *NARROW, tcp=True) as server:
            stuck = [self._stuck(server)]
            say_no_more(stuck[0])
            for number in range(2):
                with RawClient.in_transmission(server) as client:
                    client.send(write(block_of(number), 1))
                    client.socket.settimeout(0.05)
                    while not self._has_reply(client):
                        self.assertLess(len(stuck), 300, server.log())
                        stuck.append(self._stuck(server, is_in=False))
                        say_no_more(stuck[-1])
                    client.socket.settimeout(served.PATIENCE_S)
                    self.assertEqual(client.reply(), (1, 0, b""))
            self.assertGreater(len(stuck), 2)
            for each in stuck:
                each.close()

    @staticmethod
    def _has_reply(client):
        try:
            return client.socket.recv(1, socket.MSG_PEEK) != b""
        except TimeoutError:
            return False

    @staticmethod
    def _stuck(server, is_in=True):
        """Asks for more than it takes; `is_in`: once it is not behind anybody."""
        client = RawClient.in_transmission(server, receive_buffer=4096)
        if is_in:
            client.ask(READ, 512, length=512)
        client.send(b"".join(request(READ, number, 0, 256 * KIB) for number in range(16)))
        return client


if __name__ == "__main__":
    served.main(Fence)
