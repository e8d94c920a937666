"""Thousands of connections from one process, and a good client that works beside them."""
import contextlib
import errno
import random
import resource
import selectors
import socket
import struct
import threading
import time

from raw_client import FLUSH, READ, RawClient, write
from served import KIB

GREETING_LENGTH = 18
PATIENCE_S = 60
# What this process has open beside a crowd: its own files, the good client, the server's pipes.
DESCRIPTORS_BESIDE = 200


def allow_descriptors(count):
    """Raises this process's limit, and so that of the servers it starts; False when the machine does not let it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + DESCRIPTORS_BESIDE
    if soft >= wanted:
        return True
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, PermissionError):
        return False
    return True


@contextlib.contextmanager
def gone_is_fine():
    """The server may have closed already when something is sent."""
    try:
        yield
    except (BrokenPipeError, ConnectionResetError):
        pass
    except OSError as failure:
        if failure.errno != errno.ENOTCONN:
            raise


class GoodClient:
    """Writes, reads back and flushes without end, in a thread of its own, while its `with` block lasts."""

    def __init__(self, server, begin=0, length=256 * KIB):
        self._client = RawClient.in_transmission(server)
        self._begin, self._length = begin, length
        self._rounds = 0
        self._failure = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self):
        generator = random.Random(1)
        try:
            while not self._is_over.is_set():
                data = generator.randbytes(4 * KIB)
                offset = self._begin + generator.randrange(self._length - len(data))
                self._client.send(write(data, cookie=1, offset=offset))
                assert self._client.reply() == (1, 0, b""), "the write failed"
                answer = self._client.ask(READ, len(data), cookie=2, offset=offset, length=len(data))
                assert answer == (2, 0, data), "what was read is not what was written"
                assert self._client.ask(FLUSH, cookie=3) == (3, 0, b""), "the flush failed"
                self._rounds += 1
                time.sleep(0.001)  # So that the crowd, in the same process, gets to run.
        except Exception as failure:  # pylint: disable=broad-except
            self._failure = failure

    def expect_progress(self, rounds=3):
        """It is served now."""
        wanted = self._rounds + rounds
        deadline = time.monotonic() + PATIENCE_S
        while self._rounds < wanted:
            if self._failure is not None or time.monotonic() > deadline:
                raise AssertionError(f"the good client was not served: {self._failure or 'no answer'}")
            time.sleep(0.005)

    def __enter__(self):
        self._thread.start()
        self.expect_progress()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join(PATIENCE_S)
        self._client.close()


class Crowd:
    """Connections that say nothing. `greeted` are those that the server let in, as far as is known."""

    def __init__(self, server):
        self._family, self._address = server.address
        self._waiting = selectors.DefaultSelector()
        self._received = {}
        self.greeted = set()
        self.refused = 0

    def connect(self, count):
        """`count` more, each as soon as the server's queue has room."""
        for _ in range(count):
            connection = self._connected()
            connection.setblocking(False)
            self._received[connection] = 0
            self._waiting.register(connection, selectors.EVENT_READ)
            self._look(0)

    def _connected(self):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            connection = socket.socket(self._family)
            connection.settimeout(PATIENCE_S)
            try:
                connection.connect(self._address)
                return connection
            except BlockingIOError:  # A Unix socket's full queue, with a time-out, is that and no wait.
                connection.close()
                self._look(0.001)
            if time.monotonic() > deadline:
                raise AssertionError("the server does not accept any more")

    def _look(self, seconds):
        for key, _ in self._waiting.select(seconds):
            connection = key.fileobj
            try:
                data = connection.recv(GREETING_LENGTH)
            except ConnectionResetError:
                data = b""
            if data:
                self._received[connection] += len(data)
                self.greeted.add(connection)
            else:
                self._forget(connection)

    def _forget(self, connection):
        self._waiting.unregister(connection)
        if self._received.pop(connection) == 0:
            self.refused += 1
        self.greeted.discard(connection)
        connection.close()

    def __len__(self):
        """Those that are connected, as far as is known."""
        return len(self._received)

    def wait_until(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {PATIENCE_S} s for {what}: {len(self)} are connected, "
                                     f"{len(self.greeted)} were greeted, {self.refused} refused")
            self._look(0.05)

    def leave(self, count=None):
        """They close, all or `count` of them, without a word."""
        for connection in list(self._received)[:count]:
            # With a reset: no port stays behind in TIME_WAIT.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._waiting.unregister(connection)
            del self._received[connection]
            self.greeted.discard(connection)
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()
        self._waiting.close()
