"""Keys for tests of TLS, right and wrong ones, and clients that use them."""
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading

import served
from raw_client import ACK, RawClient, STARTTLS, option

PSK_USER, STRANGER = "erin", "mallory"


def certtool(*arguments):
    subprocess.run(["certtool", *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, check=True)


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

    # Wrong keys of each kind: a folder like a client's, or a file of pre-shared keys.

    def nobody(self):
        """Knows the server's authority, and has no certificate."""
        return self._folder("nobody", self.client() / "ca-cert.pem")

    def forger(self):
        """Has a certificate of another authority of the same name, and takes the server for the right one."""
        forged = self.client(whose="others")
        return self._folder("forger", self.client() / "ca-cert.pem", forged / "client-cert.pem", forged / "client-key.pem")

    def _folder(self, name, *files):
        made = self.folder / name
        made.mkdir(exist_ok=True)
        for each in files:
            shutil.copy(each, made)
        return made

    def wrong_psk(self):
        """For the same user, and another key."""
        return self._psk("wrong", f"{PSK_USER}:{'5a' * 32}\n")

    def stranger(self):
        """Of a user whom the server does not know."""
        return self._psk("stranger", f"{STRANGER}:{'5a' * 32}\n")

    def _psk(self, name, line):
        file = self._folder(name) / "keys.psk"
        file.write_text(line)
        return file

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
        certtool("--generate-privkey", "--key-type", "ecdsa", "--outfile", key)
        certtool("--generate-certificate", "--load-privkey", key, "--load-ca-certificate",
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
        certtool("--generate-crl", "--load-ca-certificate", authority / "ca-cert.pem", "--load-ca-privkey",
                       authority / "ca-key.pem", "--load-certificate", revoked, "--template", template, "--outfile",
                       self.server / "ca-crl.pem")

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
    def qemu_certificate(folder, is_checked=True):
        """By default QEMU looks at its own certificate first, and does not connect with a bad one."""
        return f"tls-creds-x509,dir={folder}" + ("" if is_checked else ",sanity-check=off")

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


class CerttoolKeys:
    """Made by certtool as QEMU's documentation has it, with the kind of key that it makes unasked and its text in front: a
    root, and below it an authority for servers and one for clients."""

    AUTHORITY = "ca\ncert_signing_key\n"
    LEAVES = {"server": "organization = Example\ncn = localhost\ndns_name = localhost\ntls_www_server\n",
              "client": "country = GB\nlocality = London\norganization = Example\ncn = host.example.org\ntls_www_client\n"}

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        making = [subprocess.Popen(["certtool", "--generate-privkey", "--outfile", self.key(name)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                  for name in ("root", "servers", "clients", *self.LEAVES)]
        if any([each.wait() for each in making]):
            raise AssertionError("certtool made no key")
        self._certify("root", f"cn = Example\n{self.AUTHORITY}", "--generate-self-signed")
        for name in ("servers", "clients"):
            self._certify(name, f"cn = Example of {name}\n{self.AUTHORITY}", *self._by("root"))

    def key(self, name):
        return self.folder / f"{name}-key.pem"

    def _certificate(self, name):
        return self.folder / f"{name}-cert.pem"

    def _by(self, authority):
        return ["--generate-certificate", "--load-ca-certificate", self._certificate(authority), "--load-ca-privkey",
                self.key(authority)]

    def _certify(self, name, text, *how):
        template = self.folder / "template.info"
        template.write_text(text)
        certtool(*how, "--load-privkey", self.key(name), "--template", template, "--outfile", self._certificate(name))

    def set_up(self, name, is_below, shows_chain=False, trusts_chain=False, knows_root=True):
        """A folder each for server and client. They are certified by the root, or by the authorities below it; these are
        then in what each shows, or in what each goes by, there perhaps without the root."""
        for role, text in self.LEAVES.items():
            self._certify(role, text, *self._by(f"{role}s" if is_below else "root"))
            made = self.folder / name / role
            made.mkdir(parents=True)
            shutil.copy(self.key(role), made)
            self._join(made / f"{role}-cert.pem", role, *([f"{role}s"] if shows_chain else []))
            self._join(made / "ca-cert.pem", *(["root"] if knows_root else []),
                       *(["servers", "clients"] if trusts_chain else []))
        return self.folder / name

    def _join(self, file, *names):
        file.write_bytes(b"".join(self._certificate(name).read_bytes() for name in names))


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
