"""The keys of the server under test, exchanged while it runs, and clients that have the right ones or others."""
import os
import shutil
import signal
import threading

import served
import tls_keys

NAMES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")


class KeyRing:
    """Certificates and pre-shared keys that the program makes itself. Whoever needs to know which count holds `changing`."""

    def __init__(self, folder, socket):
        self._folder, self._socket = folder, socket
        self._made = 0
        self._certificates, self._psk = folder / "server", folder / "keys.psk"
        self._certificates.mkdir(parents=True)
        self.changing = threading.Lock()
        self.current = self._make()
        self._install()

    def options(self):
        return ["--tls", "allowed", "--tls-certificates", self._certificates, "--tls-psk", self._psk]

    def _make(self):
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        return tls_keys.Keys(folder)

    def _install(self):
        for name in NAMES:
            self._put(self.current.server / name, self._certificates / name)
        self._put(self.current.psk, self._psk)

    @staticmethod
    def _put(source, target):
        shutil.copy(source, target.with_suffix(".new"))
        os.replace(target.with_suffix(".new"), target)

    # Clients

    def plain_uri(self):
        return f"nbd+unix:///?socket={self._socket}"

    def _certificate_uri(self, folder):
        return f"nbds+unix:///?socket={self._socket}&tls-certificates={folder}&tls-hostname=localhost"

    def _psk_uri(self, file):
        return f"nbds+unix://{tls_keys.PSK_USER}@/?socket={self._socket}&tls-psk-file={file}"

    def right_uris(self, keys=None):
        keys = keys or self.current
        return [self._certificate_uri(keys.client()), self._psk_uri(keys.psk)]

    def wrong_uris(self):
        """Somebody else's certificate, and another pre-shared key for a user that there is."""
        return [self._certificate_uri(self.current.client(whose="others")), self._psk_uri(self.current.wrong_psk())]

    def connect(self, chance):
        """A handle of libnbd, one in three without TLS."""
        with self.changing:
            return self._connected(chance.choice([self.plain_uri(), *self.right_uris()]))

    @staticmethod
    def _connected(uri):
        import nbd
        handle = nbd.NBD()
        handle.set_uri_allow_local_file(True)
        handle.connect_uri(uri)
        if handle.get_tls_negotiated() != uri.startswith("nbds"):
            raise RuntimeError("TLS was not as it was asked for")
        return handle

    def knock_with_wrong_keys(self, chance):
        with self.changing:
            self._expect_refused(chance.choice(self.wrong_uris()))

    def _expect_refused(self, uri):
        import nbd
        try:
            self._connected(uri)
        except nbd.Error:
            return
        raise RuntimeError(f"a client with a wrong key was let in: {uri}")

    # Exchange

    def exchange(self, server):
        """All of them; then the new ones count and those before do not."""
        fresh = self._make()
        with self.changing:
            before, self.current = self.current, fresh
            self._install()
            self._have_read(server, "new connections: certificates of ")
            self._expect_right_ones_only(before)
        shutil.rmtree(before.folder)

    def break_them(self, server, chance):
        """One file is of no use: the keys that count stay those that did."""
        with self.changing:
            name = chance.choice([*NAMES, "keys.psk"])
            broken = self._psk if name == "keys.psk" else self._certificates / name
            content = broken.read_bytes()
            others = {"server-key.pem": (self.current.folder / "others/server/server-key.pem").read_bytes(),
                      "keys.psk": b"nobody has a key\n"}
            broken.write_bytes(chance.choice([others.get(name, b"nothing\n"), content[:len(content) // 2]])
                               if name != "keys.psk" else others[name])
            self._have_read(server, "going on with the keys as they were")
            self._install()
            self._expect_right_ones_only()

    def _expect_right_ones_only(self, before=None):
        for uri in self.right_uris():
            self._connected(uri).shutdown()
        for uri in self.wrong_uris() + (self.right_uris(before) if before else []):
            self._expect_refused(uri)

    @staticmethod
    def _have_read(server, words):
        said = len(server.log())
        server.signal(signal.SIGHUP)
        served.wait_until(lambda: words in server.log()[said:], served.PATIENCE_S, lambda: f"'{words}':\n{server.log()[said:]}")
