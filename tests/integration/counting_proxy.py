"""A Unix socket in front of a server's, which counts the bytes that pass."""
import socket
import threading

PIECE = 1 << 20
BEGINNING = 64 << 10


class CountingProxy:
    """Forwards any number of connections while its `with` block lasts."""

    def __init__(self, server, path):
        self.uri = f"nbd+unix:///?socket={path}"
        self._target = server.socket_path
        self._lock = threading.Lock()
        self._bytes = 0
        self.beginning = b""  # of what clients sent, those of several one after another
        self._threads = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(16)

    @property
    def bytes(self):
        """Of both directions, so far."""
        with self._lock:
            return self._bytes

    def _start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments)
        thread.start()
        self._threads.append(thread)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # The block has ended.
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._start(self._forward, client, server, True)
            self._start(self._forward, server, client, False)

    def _forward(self, source, target, is_from_client):
        buffer = memoryview(bytearray(PIECE))
        try:
            while count := source.recv_into(buffer):
                with self._lock:
                    self._bytes += count
                    if is_from_client and len(self.beginning) < BEGINNING:
                        self.beginning += buffer[:min(count, BEGINNING)]
                target.sendall(buffer[:count])
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The other side has gone, which its own tests are about.

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)
