"""Keys for tests of TLS, right and wrong ones, and clients that use them."""
import contextlib
import socket
import ssl
import subprocess
import threading

import served
from raw_client import ACK, RawClient, STARTTLS, option

PSK_USER = "erin"


class Keys:
    """Made by the program itself: an authority with a server called localhost and the clients alice and bob, the same
    from somebody else, and a file of pre-shared keys."""

    def __init__(self, folder):
        self.folder = folder
        self.psk = folder / "keys.psk"
        for name in ("ours", "others"):
            self._keygen("certificates", folder / name, "--host", "localhost", "--client", "alice", "--client", "bob")
        self._keygen("psk", self.psk, "--user", PSK_USER)
        self.server = folder / "ours/server"

    @staticmethod
    def _keygen(*arguments):
        subprocess.run([served.program, "keygen", *map(str, arguments)], stdout=subprocess.DEVNULL, check=True)

    def client(self, name="alice", whose="ours"):
        return self.folder / whose / "clients" / name

    def wrong_psk(self):
        """A folder with a file for the same user, and another key."""
        wrong = self.folder / "wrong"
        wrong.mkdir(exist_ok=True)
        (wrong / "keys.psk").write_text(f"{PSK_USER}:{'5a' * 32}\n")
        return wrong / "keys.psk"

    def expired(self, role):
        """A folder like the server's or alice's, whose certificate ended long ago."""
        made = self.folder / f"expired-{role}"
        if made.exists():
            return made
        made.mkdir()
        authority = self.folder / "ours"
        (made / "ca-cert.pem").write_bytes((authority / "ca-cert.pem").read_bytes())
        template = self.folder / f"{role}.template"
        template.write_text('activation_date = "2019-01-01 00:00:00"\nexpiration_date = "2020-01-01 00:00:00"\n'
                            "cn = localhost\ndns_name = localhost\nsigning_key\n"
                            f"tls_www_{role}\n")
        key = made / f"{role}-key.pem"
        self._certtool("--generate-privkey", "--key-type", "ecdsa", "--outfile", key)
        self._certtool("--generate-certificate", "--load-privkey", key, "--load-ca-certificate",
                       authority / "ca-cert.pem", "--load-ca-privkey", authority / "ca-key.pem", "--template", template,
                       "--outfile", made / f"{role}-cert.pem")
        return made

    def revoke(self, *names, valid=("2020-01-01", "2040-01-01")):
        """Gives the server a list of these clients' certificates, made and due on these days."""
        authority = self.folder / "ours"
        template = self.folder / "crl.template"
        template.write_text(f'crl_this_update_date = "{valid[0]} 00:00:00"\ncrl_next_update_date = "{valid[1]} 00:00:00"\n'
                            "crl_number = 1\n")
        revoked = self.folder / "revoked.pem"
        revoked.write_bytes(b"".join((self.client(name) / "client-cert.pem").read_bytes() for name in names))
        self._certtool("--generate-crl", "--load-ca-certificate", authority / "ca-cert.pem", "--load-ca-privkey",
                       authority / "ca-key.pem", "--load-certificate", revoked, "--template", template, "--outfile",
                       self.server / "ca-crl.pem")

    @staticmethod
    def _certtool(*arguments):
        subprocess.run(["certtool", *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=True)

    # What clients are told.

    def options(self, *more):
        """The server's, for certificates and pre-shared keys at once."""
        return ["--tls-certificates", self.server, "--tls-psk", self.psk, *more]

    @staticmethod
    def uri(server, folder):
        """libnbd's, with a client's certificate; an empty folder: with none."""
        if "unix:" in server.log():
            return f"nbds+unix:///?socket={server.socket_path}&tls-certificates={folder}&tls-hostname=localhost"
        return f"nbds://localhost:{server.port}/?tls-certificates={folder}"

    def psk_uri(self, server, file=None, user=PSK_USER):
        if "unix:" in server.log():
            return f"nbds+unix://{user}@/?socket={server.socket_path}&tls-psk-file={file or self.psk}"
        return f"nbds://{user}@localhost:{server.port}/?tls-psk-file={file or self.psk}"

    @staticmethod
    def qemu(server, credentials):
        """QEMU's words for the export."""
        where = (f"server.type=unix,server.path={server.socket_path},tls-hostname=localhost" if "unix:" in server.log()
                 else f"server.type=inet,server.host=localhost,server.port={server.port}")
        return ["--object", f"{credentials},id=tls,endpoint=client", "--image-opts", f"driver=nbd,{where},tls-creds=tls"]

    @staticmethod
    def qemu_certificate(folder):
        return f"tls-creds-x509,dir={folder}"

    def qemu_psk(self, file=None, user=PSK_USER):
        return f"tls-creds-psk,username={user},dir={(file or self.psk).parent}"

    def connect(self, server, configure=None):
        """A connected libnbd handle of alice."""
        import nbd
        handle = nbd.NBD()
        if configure:
            configure(handle)
        handle.set_uri_allow_local_file(True)
        handle.connect_uri(self.uri(server, self.client()))
        return handle

    def context(self, name="alice", whose="ours", version=None):
        """Python's, with a client's certificate; name None: with none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.folder / "ours/ca-cert.pem")
        if version:
            context.minimum_version = context.maximum_version = version
        if name:
            folder = self.client(name, whose)
            context.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
        return context


@contextlib.contextmanager
def _plain_errors():
    try:
        yield
    except ssl.SSLError as error:
        raise ConnectionResetError(str(error)) from error


class TlsClient(RawClient):
    """A RawClient that upgrades to TLS right after the greeting."""

    def __init__(self, server, context, **how):
        super().__init__(server, **how)
        self.ask_for_tls()
        self.plain = self.socket
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    # An end in the midst of TLS is an end.

    def send(self, data):
        with _plain_errors():
            super().send(data)

    def receive(self, length):
        with _plain_errors():
            return super().receive(length)

    def receive_rest(self):
        with contextlib.suppress(ssl.SSLError):
            return super().receive_rest()
        return b""

    def ask_for_tls(self):
        self.send(option(STARTTLS))
        kind, data = self.option_reply()
        if kind != ACK:
            raise AssertionError(f"STARTTLS was answered {kind:#x} {data!r}")


class StartTlsProxy:
    """A port where TLS begins at once, for programs that know nothing of NBD: it does what goes before."""

    def __init__(self, server):
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        upstream = RawClient(self._server)
        upstream.send(option(STARTTLS))
        upstream.option_reply()
        upstream.socket.settimeout(None)
        back = threading.Thread(target=self._pump, args=(upstream.socket, client), daemon=True)
        back.start()
        self._pump(client, upstream.socket)
        back.join()
        upstream.close()
        client.close()

    @staticmethod
    def _pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


class TlsFacts(served.Facts):
    """Facts with keys at hand."""

    def setUp(self):
        super().setUp()
        self.keys = Keys(self.sockets)

    def serve_tls(self, file, *options, **how):
        return self.serve(file, *self.keys.options(*options), **how)
