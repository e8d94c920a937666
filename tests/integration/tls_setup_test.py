#!/usr/bin/python3
"""Setting TLS up: keys are made and said how to use, wrong ones are named, and new ones are read on SIGHUP."""
import contextlib
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import nbd
import served
from served import MIB
from tls_keys import PSK_USER, CerttoolKeys, StartTlsProxy, TlsFacts


class TlsSetup(TlsFacts):
    def _program(self, *arguments, status=0):
        return self.run_tool(served.program, *arguments, status=status, cwd=self.folder)

    def _refused(self, message, *arguments, status=1):
        said = self._program("--unix", self.free_socket(), *arguments, self.sparse(MIB), status=status)
        self.assertIn(f"aionbd: {message}", said.splitlines()[0])

    # keygen

    def _follow(self, said, server_words):
        """Runs what keygen said, but for the address: (the server, the clients' command lines)."""
        commands = re.sub(r" \\\n +", " ", said)
        serve = next(line.split() for line in commands.splitlines() if line.startswith("  aionbd "))
        self.assertEqual(serve[1:-3], server_words)
        self.assertEqual(serve[-3:], ["--listen", "0.0.0.0", "disk.img"])
        server = self.serve(self.sparse(MIB), *server_words, tcp=True)
        clients = [line.strip() for line in commands.splitlines() if re.match(r"  (nbdinfo|qemu-img|sudo nbd-client) ", line)]
        return server, [each.replace("localhost/?", f"localhost:{server.port}/?").replace("port=10809", f"port={server.port}")
                        for each in clients]

    def what_keygen_says_of_certificates_works(self):
        said = self._program("keygen", "certificates", "pki", "--host", "localhost", "--client", "alice")
        shutil.copytree(self.folder / "pki/clients/alice", self.folder / "elsewhere/alice")
        server, clients = self._follow(said, ["--tls-certificates", str(self.folder / "pki/server")])
        with server:
            self.assertEqual([each.split()[0] for each in clients], ["nbdinfo", "qemu-img", "sudo"])
            for command in clients[:2]:
                self.assertIn("1048576", self.run_tool("bash", "-c", command, cwd=self.folder / "elsewhere"))
            for name in re.findall(r"\S+\.pem", clients[2]):  # the kernel's client needs a kernel: tests/kernel
                self.assertTrue((self.folder / "elsewhere" / name).exists(), name)

    def what_keygen_says_of_pre_shared_keys_works(self):
        said = self._program("keygen", "psk", "keys.psk", "--user", "alice@example.org", "--user", "bob")
        said = said.replace(f"@{os.uname().nodename}/", "@localhost/").replace(f"host={os.uname().nodename},", "host=localhost,")
        server, clients = self._follow(said, ["--tls-psk", str(self.folder / "keys.psk")])
        with server:
            self.assertEqual([each.split()[0] for each in clients], ["nbdinfo", "qemu-img"])
            for command in clients:
                self.assertIn("1048576", self.run_tool("bash", "-c", command))
                self.assertIn("1048576", self.run_tool("bash", "-c", command.replace("alice%40example.org", "bob").replace("alice@example.org", "bob")))

    def the_readmes_line_for_qemu_gives_a_machine_its_disk(self):
        readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8").replace(" \\\n", " ")
        command = next(line for line in readme.splitlines() if "$ qemu-system-x86_64" in line and "tls-creds-psk" in line)
        command = command.partition("$ ")[2].partition("#")[0].strip()
        self._program("keygen", "psk", "keys.psk", "--user", "alice")
        certificates = command.replace("-psk,", "-x509,").replace("username=alice,dir=$PWD", "dir=pki/clients/alice")
        self._program("keygen", "certificates", "pki", "--host", "localhost", "--client", "alice")
        for keys, line in ((["--tls-psk", self.folder / "keys.psk"], command),
                           (["--tls-certificates", self.folder / "pki/server"], certificates)):
            with self.serve(self.sparse(MIB), *keys, tcp=True) as server:
                line = line.replace("server.example.org", f"localhost,port={server.port}")
                self.assertIn("-object tls-creds", line)
                said = subprocess.run(["bash", "-c", f"{line} -m 64 -S -display none -monitor stdio"], input="info block\nquit\n",
                                      cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(said.returncode, 0, said.stderr)
                self.assertIn("virtio0", said.stdout)
                self.assertIn("serving export ''", server.log())

    def keygen_takes_a_host_of_any_length(self):
        host = ".".join(["a" * 60] * 4)
        self._program("keygen", "certificates", "pki", "--host", host)
        said = self.run_tool("openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", self.folder / "pki/server/server-cert.pem")
        self.assertIn(f"DNS:{host}", said)

    def the_readmes_lines_for_libnbd_work_as_they_stand(self):
        readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
        steps = readme.partition("**libnbd's tools**")[2].partition("```\n")[2].partition("```")[0].splitlines()
        keygen, serve, nbdinfo = (line.partition("$ ")[2].partition("  #")[0].split(maxsplit=1) for line in steps)
        self.assertEqual((keygen[0], serve[0], nbdinfo[0]), ("aionbd", "aionbd", "nbdinfo"))
        self._program(*keygen[1].split())
        *server_words, where, disk = serve[1].split()
        self.assertEqual((server_words[-1], where, disk), ("--listen", "0.0.0.0", "disk.img"))
        self.assertEqual(server_words[:2], ["--tls-psk", "keys.psk"])
        with self.serve(self.sparse(MIB), "--tls-psk", self.folder / "keys.psk", tcp=True) as server:
            command = " ".join(nbdinfo).replace("server.example.org", f"localhost:{server.port}")
            shown = self.run_tool("bash", "-c", command, cwd=self.folder)
            self.assertIn("with TLS", shown)
            self.assertIn("export-size: 1048576", shown)
            server.wait_for_log("pre-shared key of alice")

    def keygen_adds_a_client_later(self):
        self._program("keygen", "certificates", "pki", "--host", "localhost")
        before = (self.folder / "pki/server/server-key.pem").read_bytes()
        said = self._program("keygen", "certificates", "pki", "--client", "late")
        self.assertIn("clients/late", said)
        self.assertEqual((self.folder / "pki/server/server-key.pem").read_bytes(), before)
        with self.serve(self.sparse(MIB), "--tls-certificates", self.folder / "pki/server", tcp=True) as server:
            self.run_tool("nbdinfo", self.keys.uri(server, self.folder / "pki/clients/late"))

    def keygen_overwrites_nothing(self):
        self._program("keygen", "certificates", "pki", "--host", "localhost")
        self._program("keygen", "psk", "keys.psk")
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        for arguments in (["psk", "keys.psk"], ["certificates", "pki", "--host", "other"],
                          ["certificates", "pki", "--client", "client"]):
            self.assertIn("there already; nothing is overwritten", self._program("keygen", *arguments, status=1))
        self.assertIn("--client NAME adds a client", self._program("keygen", "certificates", "pki", status=2))
        self.assertEqual({path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}, before)

    def keygen_keeps_keys_to_their_owner(self):
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        self._program("keygen", "certificates", "pki", "--host", "localhost")
        self._program("keygen", "psk", "keys.psk")
        for path in self.folder.rglob("*"):
            mode = stat.S_IMODE(path.lstat().st_mode)
            if path.is_dir():
                self.assertEqual(mode, 0o700, path)
            elif path.name.endswith(("-key.pem", ".psk")):
                self.assertEqual(mode, 0o600, path)

    def keygen_that_is_misused_says_how_it_is_used(self):
        for arguments in ([], ["magic"], ["psk"], ["certificates"], ["psk", "k", "--user", "a:b"], ["psk", "k", "--user", "a'b"],
                          ["certificates", "d", "--host", "a,DNS:b"], ["certificates", "d", "--client", "../x"],
                          ["certificates", "d", "--days", "0"]):
            self.assertIn("Try aionbd --help", self._program("keygen", *arguments, status=2), arguments)
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertIn("certificates", self._program("keygen", "--help"))
        self.assertIn("--host", self._program("keygen", "certificates", "--help"))

    def keygen_says_what_names_it_takes(self):
        for name in (".hidden", "a" * 65, "a b", "a/b"):
            for knob, arguments in (("--user", ["psk", "k"]), ("--client", ["certificates", "d"])):
                self.assertIn(f"{knob}: '{name}' is not 1 to 64 letters, digits and .-_@ without a leading dot",
                              self._program("keygen", *arguments, knob, name, status=2))
        self.assertEqual(list(self.folder.iterdir()), [])
        for knob, arguments in (("--user", ["psk", "k"]), ("--client", ["certificates", "d"])):
            self._program("keygen", *arguments, knob, "a" * 64)

    # Keys that others made

    @staticmethod
    def _s_client(proxy, folder, *words):
        certificate = folder / "client-cert.pem"
        return ["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-tls1_2", "-CAfile", folder / "ca-cert.pem",
                "-cert", certificate, "-cert_chain", certificate, "-key", folder / "client-key.pem", "-verify_return_error",
                "-partial_chain", *words]

    def set_ups_made_by_certtool_work_as_they_are(self):
        self.need("certtool", "openssl")
        made = CerttoolKeys(self.sockets / "certtool")
        self.assertRegex(made.key("server").read_text(), r"^Public Key Info:\n\s*Public Key Algorithm: RSA\n")
        for name, how in (("flat", {"is_below": False}), ("shown", {"is_below": True, "shows_chain": True}),
                          ("trusted", {"is_below": True, "trusts_chain": True}),
                          ("rootless", {"is_below": True, "trusts_chain": True, "knows_root": False})):
            folder = made.set_up(name, **how)
            client = folder / "client"
            with self.serve(self.sparse(MIB), "--tls-certificates", folder / "server", tcp=True) as server:
                self.run_tool("nbdinfo", self.keys.uri(server, client))
                # QEMU's own look at its certificate knows the authorities of ca-cert.pem only.
                credentials = self.keys.qemu_certificate(client, is_checked=name != "shown")
                self.run_tool("qemu-img", "info", *self.keys.qemu(server, credentials))
                server.wait_for_log("TLSv1.3, TLS_AES_128_GCM_SHA256, CN=host.example.org,O=Example,L=London,C=GB\n", 2)
                with StartTlsProxy(server) as proxy:
                    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"):
                        shown = self.run_tool(*self._s_client(proxy, client, "-cipher", f"ECDHE-RSA-{cipher}"))
                        self.assertIn(f"New, TLSv1.2, Cipher is ECDHE-RSA-{cipher}\n", shown)
                        server.wait_for_log(f"TLSv1.2, ECDHE-RSA-{cipher}, CN=host.example.org,")
        # Who shows no way to the root that the server goes by is not let in.
        with (self.serve(self.sparse(MIB), "--tls-certificates", made.folder / "shown/server", tcp=True) as server,
              StartTlsProxy(server) as proxy):
            self.run_tool(*self._s_client(proxy, made.set_up("broken", is_below=True) / "client"), status=1)
            server.wait_for_log("no TLS: the client's certificate: unable to get local issuer certificate, closing")

    def a_system_that_puts_up_with_weak_keys_makes_the_server_no_weaker(self):
        self.need("openssl")
        weak = self.sockets / "openssl.cnf"
        weak.write_text("openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = weak\n"
                        "[weak]\nMinProtocol = TLSv1\nCipherString = DEFAULT:@SECLEVEL=0\n")
        key = self.keys.psk.read_text().strip().partition(":")[2]
        with (self.serve_tls(self.sparse(MIB), tcp=True, environment={"OPENSSL_CONF": str(weak)}) as server,
              StartTlsProxy(server) as proxy):
            client = ["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-psk_identity", PSK_USER, "-psk", key,
                      "-cipher", "DHE-PSK-AES128-GCM-SHA256:@SECLEVEL=0"]
            self.assertIn("Server Temp Key: DH, 2048 bits", self.run_tool(*client, "-tls1_2"))
            self.run_tool(*client, "-tls1_1", status=1)

    # Wrong keys at start

    def contradictions_are_named(self):
        for message, arguments in (
                ("--tls: 'maybe' is not one of off, allowed, required", ["--tls", "maybe"]),
                ("--tls required: needs --tls-certificates or --tls-psk", ["--tls", "required"]),
                ("--tls allowed: needs --tls-certificates or --tls-psk", ["--tls", "allowed"]),
                ("--tls off: cannot be used with --tls-psk", ["--tls", "off", "--tls-psk", self.keys.psk]),
                ("--tls off: cannot be used with --tls-certificates", ["--tls", "off", "--tls-certificates", "x"]),
                ("--tls-allow: needs --tls-certificates", ["--tls-allow", "a", "--tls-psk", self.keys.psk]),
                ("--tls-certificates: the name is empty", ["--tls-certificates", ""]),
                ("--tls-psk: the name is empty", ["--tls-psk", ""])):
            self._refused(message, *arguments, status=2)

    def keys_of_no_use_are_named(self):
        folder = self.keys.server
        self._refused(f"--tls-certificates: there is no {self.folder}/server-cert.pem; aionbd keygen makes one",
                      "--tls-certificates", self.folder)
        self._refused(f"--tls-psk: there is no {self.folder}/none; aionbd keygen makes one", "--tls-psk",
                      self.folder / "none")
        self._refused(f"--tls-certificates: {self.keys.expired('server')}/server-cert.pem expired on Jan  1",
                      "--tls-certificates", self.keys.expired("server"))
        shutil.copy(self.keys.folder / "others/server/server-key.pem", folder / "server-key.pem")
        self._refused(f"--tls-certificates: {folder}/server-key.pem is not the key of {folder}/server-cert.pem",
                      "--tls-certificates", folder)

    def a_key_without_permission_is_named(self):
        self.need("setpriv")
        self.need_root()
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        image = self.sparse(MIB)
        os.chmod(image, 0o666)
        for path in (self.folder, self.sockets, self.keys.server, self.keys.server.parent):
            os.chmod(path, 0o777)
        said = self.run_tool(*command, served.program, "--unix", self.free_socket(), "--io", "buffered",
                             "--tls-certificates", self.keys.server, image, status=1)
        self.assertIn(f"cannot read {self.keys.server}/server-key.pem: Permission denied", said)

    def keys_that_everybody_can_read_are_warned_about(self):
        os.chmod(self.keys.psk, 0o644)
        with self.serve_tls(self.sparse(MIB)) as server:
            self.assertIn(f"warning: every user of this machine can read {self.keys.psk}; chmod 600 it", server.log())

    # Who can reach it

    def an_open_address_without_tls_is_warned_about_in_one_sentence(self):
        image = self.sparse(MIB)
        encrypted = self.keys.folder / "encrypted"
        shutil.copytree(self.keys.server, encrypted)
        (encrypted / "ca-cert.pem").unlink()
        without_authority = ["--tls-certificates", encrypted]
        in_clear_text = "can use the disk, and anyone on the path can read it: "
        nobody_is_asked = "can use the disk: without a ca-cert.pem, clients need no key of their own"
        for options, why in (((), in_clear_text + "there is no TLS"),
                             (self.keys.options("--tls", "allowed"), in_clear_text + "TLS is not required"),
                             ([*without_authority, "--tls", "allowed"], in_clear_text + "TLS is not required"),
                             (without_authority, nobody_is_asked),
                             ([*without_authority, "--tls-psk", self.keys.psk], nobody_is_asked)):
            with self.serve(image, "--listen", "0.0.0.0:0", *options) as server:
                port = re.search(r"listening on 0\.0\.0\.0:(\d+)", server.log()).group(1)
                self.assertEqual(server.log().count("warning: "), 1)
                self.assertIn(f"warning: anyone who reaches 0.0.0.0:{port} {why}\n", server.log())
        for options in (self.keys.options(), ["--tls-psk", self.keys.psk]):
            with self.serve(image, "--listen", "0.0.0.0:0", *options) as server:
                self.assertNotIn("warning: ", server.log())
        with self.serve(image, *without_authority, tcp=True) as server:
            self.assertNotIn("warning: ", server.log())
        for tcp in (False, True):
            with self.serve(image, tcp=tcp) as server:
                self.assertNotIn("warning: ", server.log())

    # SIGHUP

    def new_certificates_are_read_while_connections_go_on(self):
        with self.serve_tls(self.sparse(MIB), tcp=True) as server:
            old = self.keys.connect(server)
            old.pwrite(b"before", 0)
            # The server changes sides: its certificate, and whom it believes, are now the others'.
            for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
                shutil.copy(self.keys.folder / "others/server" / name, self.keys.server / name)
            server.signal(signal.SIGHUP)
            server.wait_for_log("new connections: certificates of ")
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client(whose="others")))
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client()), status=1)
            self.assertEqual(old.pread(6, 0), b"before")
            old.shutdown()

    @contextlib.contextmanager
    def _hanging(self, server):
        """The process that opens files for the server hangs, as it does with a file system that does not answer."""
        keeper = int(self.run_tool("pgrep", "-P", str(server.pid), "aionbd-files"))
        os.kill(keeper, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(keeper, signal.SIGCONT)

    def a_file_system_that_takes_its_time_over_new_keys_keeps_no_client_waiting(self):
        with self.serve_tls(self.sparse(MIB)) as server:
            client = self.keys.connect(server)
            with self._hanging(server):
                server.signal(signal.SIGHUP)
                client.pwrite(b"meanwhile", 0)
                self.assertEqual(client.pread(9, 0), b"meanwhile")
                self.assertNotIn("going on with the keys as they were", server.log())
                server.wait_for_log("Connection timed out; going on with the keys as they were")
                # It is not waited for a second time.
                server.signal(signal.SIGHUP)
                server.wait_for_log("Connection timed out; going on with the keys as they were", count=2, patience_s=5)

            def reads_again():
                server.signal(signal.SIGHUP)
                return "new connections: " in server.log()
            served.wait_until(reads_again, served.PATIENCE_S, lambda: f"new keys:\n{server.log()}")
            client.shutdown()

    def a_file_system_that_hangs_over_new_keys_does_not_keep_a_stopping_server_from_its_clients(self):
        server = self.serve_tls(self.sparse(MIB))
        client = self.keys.connect(server)
        with self._hanging(server):
            server.signal(signal.SIGHUP)
            server.signal(signal.SIGTERM)
            server.wait_for_notice("STOPPING=1")
            with self.assertRaises(nbd.Error):  # told so, or hung up on, while the keys are still waited for
                while True:
                    client.pread(9, 0)
            self.assertNotIn("going on with the keys as they were", server.log())
            server.wait_for_log("warning: --unix: cannot remove .*: Connection timed out")
            server.expect_end(0)
        # What it could not remove is no obstacle.
        with self.serve_tls(self.sparse(MIB, "other.img"), "--unix", server.socket_path, tcp=True) as successor:
            self.assertIn(f"listening on unix:{server.socket_path}", successor.log())

    def a_reader_of_keys_that_never_comes_back_does_not_keep_a_server_from_its_end(self):
        source = self.serve(self.keys.psk)
        mount = self.folder / "mount"
        mount.mkdir()
        fuse = subprocess.Popen(["nbdfuse", "--readonly", f"{mount}/keys.psk", source.uri], stderr=subprocess.DEVNULL)
        try:
            served.wait_until((mount / "keys.psk").exists, served.PATIENCE_S, "a mount")
            with self.serve(self.sparse(MIB), "--tls-psk", mount / "keys.psk") as server:
                self.run_tool("nbdinfo", self.keys.psk_uri(server))
                source.signal(signal.SIGSTOP)
                server.signal(signal.SIGHUP)
                served.wait_until(lambda: str(mount / "keys.psk") in server.open_paths(), served.PATIENCE_S, "a reader")
                server.signal(signal.SIGTERM)
                server.expect_end(0)
                self.assertNotIn("keys", server.log().partition("SIGHUP")[2])
        finally:
            source.signal(signal.SIGCONT)
            subprocess.run(["umount", mount], check=True)
            fuse.wait(served.PATIENCE_S)
            source.stop()

    def new_pre_shared_keys_are_read(self):
        with self.serve_tls(self.sparse(MIB)) as server:
            self.run_tool("nbdinfo", self.keys.psk_uri(server, self.keys.wrong_psk()), status=1)
            shutil.copy(self.keys.wrong_psk(), self.keys.psk)
            server.signal(signal.SIGHUP)
            server.wait_for_log("new connections: ")
            self.run_tool("nbdinfo", self.keys.psk_uri(server, self.keys.wrong_psk()))

    def bad_new_keys_are_reported_and_the_old_ones_stay(self):
        with self.serve_tls(self.sparse(MIB), tcp=True) as server:
            rubbish = self.folder / "rubbish"
            rubbish.write_text("rubbish\n")
            for source, name, complaint in (
                    (self.keys.expired("server") / "server-cert.pem", "server-cert.pem", "expired on "),
                    (rubbish, "server-key.pem", "has no private key"),
                    (None, "ca-cert.pem", "there is no .*ca-cert.pem any more")):
                path = self.keys.server / name
                kept = path.read_bytes()
                if source:
                    shutil.copy(source, path)
                else:
                    path.unlink()
                server.signal(signal.SIGHUP)
                server.wait_for_log(f"error: --tls-certificates: .*{complaint}.*; going on with the keys as they were")
                self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client()))
                path.write_bytes(kept)
            self.assertNotIn("new connections: ", server.log())

    @staticmethod
    def _remembers(server, bytes_sought):
        """How often they are in the memory that the server may write to."""
        found = 0
        with open(f"/proc/{server.pid}/maps", encoding="ascii") as maps, open(f"/proc/{server.pid}/mem", "rb", 0) as memory:
            for line in maps:
                where, rights = line.split()[:2]
                if rights.startswith("rw"):
                    begin, end = (int(each, 16) for each in where.split("-"))
                    memory.seek(begin)
                    found += memory.read(end - begin).count(bytes_sought)
        return found

    def keys_are_in_memory_once_and_old_ones_are_forgotten(self):
        if served.is_sanitized():
            self.skipTest("sanitizers keep what was freed")
        # Many, as some of what is freed is soon used for something else.
        end = os.urandom(32)
        written = [os.urandom(32) + end for _ in range(100)]
        self.keys.psk.write_text("".join(f"user{at}:{key.hex()}\n" for at, key in enumerate(written)))
        # Not its first bytes: who frees memory writes there.
        pem = (self.keys.server / "server-key.pem").read_bytes().splitlines()[2][8:40]
        with self.serve_tls(self.sparse(MIB)) as server:
            self.assertEqual(self._remembers(server, end), len(written))
            self.assertEqual(self._remembers(server, end.hex().encode()), 0)
            self.assertEqual(self._remembers(server, pem), 0)
            shutil.copy(self.keys.wrong_psk(), self.keys.psk)
            self._reload(server, "new connections: ")
            self.assertEqual(self._remembers(server, end), 0)

    # Revocations

    def _reload(self, server, log, count=1):
        server.signal(signal.SIGHUP)
        server.wait_for_log(log, count=count)

    def revoked_clients_stay_outside_and_a_new_list_counts_at_once(self):
        self.keys.revoke("alice")
        with self.serve(self.sparse(MIB), "--tls-certificates", self.keys.server, tcp=True) as server:
            server.wait_for_log("not revoked by ca-crl.pem, which is good until Jan  1 00:00:00 2040 GMT")
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client("alice")), status=1)
            server.wait_for_log("no TLS: the client's certificate: certificate revoked, closing")
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client("bob")))
            self.keys.revoke("alice", "bob")
            self._reload(server, "new connections: .*not revoked by ca-crl.pem")
            for name in ("alice", "bob"):
                self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client(name)), status=1)
            self.keys.revoke("bob")
            self._reload(server, "new connections: ", count=2)
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client("alice")))

    def a_list_of_revocations_that_goes_or_expires_lets_nobody_in_again(self):
        path = self.keys.server / "ca-crl.pem"
        self.keys.revoke("alice")
        with self.serve(self.sparse(MIB), "--tls-certificates", self.keys.server, tcp=True) as server:
            path.unlink()
            self._reload(server, f"error: --tls-certificates: there is no {path} any more, .*; going on with the keys as they were")
            self.keys.revoke("bob", valid=("2019-01-01", "2020-01-01"))
            self._reload(server, f"error: --tls-certificates: {path} expired on Jan  1 00:00:00 2020 GMT; .*; going on with")
            self.assertNotIn("new connections: ", server.log())
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client("alice")), status=1)
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client("bob")))
        self._refused(f"--tls-certificates: {path} expired on Jan  1 00:00:00 2020 GMT; clients need a new one",
                      "--tls-certificates", self.keys.server)

    def without_tls_sighup_changes_nothing(self):
        with self.serve(self.sparse(MIB)) as server:
            server.signal(signal.SIGHUP)
            server.wait_for_log("without TLS there are no keys to read again")
            self.run_tool("nbdinfo", server.uri)

    def without_tls_the_end_of_its_terminal_is_the_servers_end(self):
        ours, terminal = pty.openpty()
        with subprocess.Popen([served.program, "--unix", self.free_socket(), self.sparse(MIB)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=terminal) as process:
            os.close(terminal)
            said = b""
            while b"listening on" not in said:
                said += os.read(ours, 4096)
            process.send_signal(signal.SIGHUP)
            self.assertEqual(process.wait(served.PATIENCE_S), 0)
        os.close(ours)


if __name__ == "__main__":
    served.main(TlsSetup)
