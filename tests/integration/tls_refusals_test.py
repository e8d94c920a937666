#!/usr/bin/python3
"""Who has the right key comes in over TLS, and nobody else: each client with each kind of key, by TCP and by Unix sockets.
What a client says of a refusal is its own affair; why it was refused is in the server's log."""
import dataclasses
import subprocess
from pathlib import Path

import served
from served import MIB
from tls_keys import PSK_USER, STRANGER, StartTlsProxy, TlsFacts


@dataclasses.dataclass
class Key:
    """What a client comes with, and what the server says of it: a pattern."""
    said: str
    folder: Path = None  # of certificates
    psk: Path = None     # or else a file of pre-shared keys
    user: str = PSK_USER
    is_right: bool = False

    def line(self, agreed=r"TLSv1\.3, TLS_AES_128_GCM_SHA256"):
        """The end of one in the server's log."""
        return f": {agreed}, {self.said}\n" if self.is_right else f": no TLS: {self.said}, closing\n"


class TlsRefusals(TlsFacts):
    def _keys(self):
        """The right ones come last."""
        return [Key("TLS: peer did not return a certificate", self.keys.nobody()),
                Key("the client's certificate: unable to get local issuer certificate", self.keys.forger()),
                Key("the client's certificate: certificate has expired", self.keys.expired("client")),
                Key("TLS: (binder does not verify|decryption failed or bad record mac)", psk=self.keys.wrong_psk()),
                Key("it named a user whose pre-shared key is not known", psk=self.keys.stranger(), user=STRANGER),
                Key("CN=alice", self.keys.client(), is_right=True),
                Key(f"pre-shared key of {PSK_USER}", psk=self.keys.psk, is_right=True)]

    def _servers(self):
        for tcp in (False, True):
            with self.serve_tls(self.sparse(MIB), tcp=tcp) as server:
                yield server

    def _comes_with_each_key(self, command_with):
        """`command_with` is a client's command line for a server and a key, or for none: then it does without TLS."""
        keys = self._keys()
        for server in self._servers():
            for key in keys:
                self.run_tool(*command_with(server, key), status=0 if key.is_right else 1)
                server.wait_for_log(key.line())
            log = server.log()
            self.assertLess(log.rindex("no TLS: "), log.index("serving export"), log)
        for server in self._servers():
            self.assertIn("TLS", self.run_tool(*command_with(server, None), status=1))
            self.assertNotIn("serving export", server.log())

    # NBD's own clients

    def _uri(self, server, key):
        if key is None:
            return server.uri
        return self.keys.uri(server, key.folder) if key.folder else self.keys.psk_uri(server, key.psk, key.user)

    def nbdinfo_comes_in_with_the_right_keys_only(self):
        self._comes_with_each_key(lambda server, key: ["nbdinfo", self._uri(server, key)])

    def nbdcopy_comes_in_with_the_right_keys_only(self):
        self._comes_with_each_key(lambda server, key: ["nbdcopy", self._uri(server, key), "null:"])

    def nbdsh_comes_in_with_the_right_keys_only(self):
        self._comes_with_each_key(lambda server, key: [
            "nbdsh", "--command",
            f"h.set_uri_allow_local_file(True); h.connect_uri('{self._uri(server, key)}'); h.pread(512, 0)"])

    def qemu_img_comes_in_with_the_right_keys_only(self):
        def command_with(server, key):
            if key is None:
                return ["qemu-img", "info", server.uri]
            # It would not even connect with a certificate that it finds fault with itself.
            credentials = (self.keys.qemu_certificate(key.folder, is_checked=False) if key.folder
                           else self.keys.qemu_psk(key.psk, key.user))
            return ["qemu-img", "info", *self.keys.qemu(server, credentials)]

        self._comes_with_each_key(command_with)

    # Clients of nothing but TLS. By TLS 1.3 they are through with the handshake before the server is, and may end well.

    def _comes_with_each_key_and_version(self, command_with):
        """`command_with` is a client's command line for a port, a key and a version of TLS."""
        keys = self._keys()
        for version in ("1.2", "1.3"):
            for server in self._servers():
                with StartTlsProxy(server) as proxy:
                    for key in keys:
                        subprocess.run(list(map(str, command_with(proxy.port, key, version))), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False)
                        server.wait_for_log(key.line(rf"TLSv{version}, [\w-]+"))
                log = server.log()
                self.assertLess(log.rindex("no TLS: "), log.index(": TLSv"), log)

    @staticmethod
    def _secret(key):
        return dict(line.split(":") for line in key.psk.read_text().split())[key.user]

    def gnutls_cli_comes_in_with_the_right_keys_only(self):
        self.need("gnutls-cli")

        def command_with(port, key, version):
            priority = f"NORMAL:-VERS-ALL:+VERS-TLS{version}"
            shown = ["--x509cafile", self.keys.client() / "ca-cert.pem"]
            if key.psk:
                priority += ":-KX-ALL:+DHE-PSK:+ECDHE-PSK"
                shown = ["--pskusername", key.user, "--pskkey", self._secret(key)]
            elif (key.folder / "client-cert.pem").exists():
                shown += ["--x509certfile", key.folder / "client-cert.pem", "--x509keyfile", key.folder / "client-key.pem"]
            return ["gnutls-cli", "127.0.0.1", "--port", port, "--verify-hostname", "localhost", "--priority", priority,
                    *shown]

        self._comes_with_each_key_and_version(command_with)

    def openssl_comes_in_with_the_right_keys_only(self):
        self.need("openssl")

        def command_with(port, key, version):
            shown = ["-CAfile", self.keys.client() / "ca-cert.pem"]
            if key.psk:
                shown = ["-psk_identity", key.user, "-psk", self._secret(key), "-cipher", "DHE-PSK-AES128-GCM-SHA256"]
            elif (key.folder / "client-cert.pem").exists():
                shown += ["-cert", key.folder / "client-cert.pem", "-key", key.folder / "client-key.pem"]
            return ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", f"-tls{version.replace('.', '_')}", *shown]

        self._comes_with_each_key_and_version(command_with)


if __name__ == "__main__":
    served.main(TlsRefusals)
