#!/usr/bin/python3
"""TLS with the clients that people have, and what they agree on; who is kept out is in tls_refusals_test.py."""
import json
import re
import ssl
import subprocess

import served
from raw_client import ERR_TLS_REQD, EXPORT_NAME, LIST, READ, RawClient, go, option, write
from served import KIB, MIB
from tls_keys import PSK_USER, StartTlsProxy, TlsClient, TlsFacts

ODD = 3 * MIB + 333


class Tls(TlsFacts):
    def _both(self, *options, file=None):
        """The same server on a Unix socket and on TCP, one after the other."""
        for tcp in (False, True):
            with self.serve_tls(file or self.sparse(ODD), *options, tcp=tcp) as server:
                yield server

    # libnbd's tools

    def nbdinfo_comes_in_by_certificate_and_by_pre_shared_key(self):
        for server in self._both():
            for uri in (self.keys.uri(server, self.keys.client()), self.keys.psk_uri(server)):
                shown = self.run_tool("nbdinfo", uri)
                self.assertIn("protocol: newstyle-fixed with TLS", shown)
                self.assertIn(f"export-size: {ODD}", shown)
            server.wait_for_log("TLSv1.3, TLS_AES_128_GCM_SHA256, CN=alice")
            server.wait_for_log(f"TLSv1.3, TLS_AES_128_GCM_SHA256, pre-shared key of {PSK_USER}")

    def nbdinfo_lists_exports_through_tls(self):
        with self.serve_tls(self.sparse(MIB), "--name", "disk", tcp=True) as server:
            exports = json.loads(self.run_tool("nbdinfo", "--list", "--json", self.keys.psk_uri(server)))["exports"]
            self.assertEqual([each["export-name"] for each in exports], ["disk"])

    def nbdcopy_copies_both_ways(self):
        source, image, copy = self.image(ODD, "source"), self.sparse(ODD), self.folder / "copy"
        for server in self._both(file=image):
            for uri in (self.keys.uri(server, self.keys.client()), self.keys.psk_uri(server)):
                self.run_tool("nbdcopy", "--connections=4", "--flush", source, uri)
                self.assert_same_bytes(image.read_bytes(), source.read_bytes())
                self.run_tool("nbdcopy", "--connections=4", uri, copy)
                self.assert_same_bytes(copy.read_bytes(), source.read_bytes())
                with open(image, "r+b") as opened:
                    opened.write(bytes(ODD))

    def nbdsh_reads_back_what_it_wrote(self):
        for server in self._both():
            for uri in (self.keys.uri(server, self.keys.client()), self.keys.psk_uri(server)):
                # With --uri it refuses to read files.
                connect = f"h.set_uri_allow_local_file(True); h.connect_uri('{uri}')"
                self.run_tool("nbdsh", "--command", connect, "--command", "h.pwrite(b'hello' * 30000, 12345)", "--command",
                              "assert h.pread(150002, 12344) == b'\\0' + b'hello' * 30000 + b'\\0'; "
                              "h.zero(150000, 12345)")

    def fio_verifies_what_it_wrote(self):
        self.need("fio", "unshare")
        home = self.folder / "home/.pki"
        home.mkdir(parents=True)
        (home / "libnbd").symlink_to(self.keys.client())
        with self.serve_tls(self.sparse(16 * MIB), tcp=True) as server:
            # libnbd looks into a home directory only for users who are not root, and fio has no other way.
            shown = self.run_tool(
                "unshare", "--user", "--map-user=1000", "env", f"HOME={self.folder / 'home'}", "fio", "--name=job",
                "--ioengine=nbd", f"--uri=nbds://localhost:{server.port}/", "--size=16m", "--iodepth=16",
                "--rw=randwrite", "--bsrange=512-256k", "--bs_unaligned=1", "--verify=crc32c", "--do_verify=1",
                "--verify_fatal=1", "--output-format=json", cwd=self.folder)
            server.wait_for_log("TLSv1.3, TLS_AES_128_GCM_SHA256, CN=alice")
        job = json.loads(shown[shown.index("{"):])["jobs"][0]
        self.assertEqual(job["error"], 0)
        self.assertGreater(job["read"]["io_bytes"], 14 * MIB)

    # QEMU

    def qemu_img_copies_both_ways(self):
        source, image = self.image(4 * MIB, "source"), self.sparse(4 * MIB)
        for server in self._both(file=image):
            for credentials in (self.keys.qemu_certificate(self.keys.client()), self.keys.qemu_psk()):
                words = self.keys.qemu(server, credentials)
                self.run_tool("qemu-img", "convert", "-n", *words[:2], "--target-image-opts", "-f", "raw", source, words[3])
                self.assert_same_bytes(image.read_bytes(), source.read_bytes())
                self.run_tool("qemu-img", "convert", *words, "-O", "raw", self.folder / "copy")
                self.assert_same_bytes((self.folder / "copy").read_bytes(), source.read_bytes())
                with open(image, "r+b") as opened:
                    opened.write(bytes(4 * MIB))

    # The server's keys

    def a_servers_certificate_of_another_authority_is_noticed_by_its_clients(self):
        self.keys.server = self.keys.folder / "others/server"
        with self.serve_tls(self.sparse(MIB), tcp=True) as server:
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client()), status=1)
            self.run_tool("qemu-img", "info", *self.keys.qemu(server, self.keys.qemu_certificate(self.keys.client())),
                          status=1)
            server.wait_for_log("no TLS: .*closing", count=2)

    # Names

    def allowed_names_come_in_and_no_others(self):
        with self.serve_tls(self.sparse(MIB), "--tls-allow", "a*e", "--tls-allow", "CN=carol", tcp=True) as server:
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client("alice")))
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client("bob")), status=1)
            server.wait_for_log("no TLS: --tls-allow has no pattern for 'CN=bob', closing")
            self.run_tool("nbdinfo", self.keys.psk_uri(server))

    # Policies

    def allowed_tls_serves_both(self):
        for server in self._both("--tls", "allowed"):
            self.assertIn("without TLS", self.run_tool("nbdinfo", server.uri))
            self.assertIn("with TLS", self.run_tool("nbdinfo", self.keys.psk_uri(server)))

    def required_tls_asks_for_itself(self):
        with self.serve_tls(self.sparse(MIB)) as server:
            with RawClient(server) as client:
                for asked in (option(LIST), go(), option(99)):
                    client.send(asked)
                    kind, sentence = client.option_reply()
                    self.assertEqual(kind, ERR_TLS_REQD)
                    self.assertIn(b"STARTTLS", sentence)
                client.send(option(EXPORT_NAME))
                self.assertEqual(client.receive_rest(), b"")
            with TlsClient.in_transmission(server, context=self.keys.context()) as client:
                self.assertEqual(client.ask(READ, 5, length=5), (0, 0, bytes(5)))

    def without_an_authority_clients_need_no_certificate(self):
        (self.keys.server / "ca-cert.pem").unlink()
        with self.serve(self.sparse(MIB), "--tls-certificates", self.keys.server, tcp=True) as server:
            self.assertIn("clients need none, as there is no ca-cert.pem", server.log())
            with TlsClient.in_transmission(server, context=self.keys.context(None)) as client:
                self.assertEqual(client.ask(READ, 5, length=5), (0, 0, bytes(5)))

    # Versions and ciphers, as other libraries see them

    def _probe(self, proxy, words, context_name="alice"):
        folder = self.keys.client(context_name)
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-CAfile", folder / "ca-cert.pem", "-cert",
             folder / "client-cert.pem", "-key", folder / "client-key.pem", "-verify_return_error", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
        agreed = re.search(r"New, TLSv\S+, Cipher is (\S+)", done.stdout)
        return agreed.group(1) if agreed and "Verify return code: 0" in done.stdout else None

    def openssl_agrees_on_modern_ciphers_only(self):
        self.need("openssl")
        with self.serve_tls(self.sparse(MIB), tcp=True) as server, StartTlsProxy(server) as proxy:
            for words, expected in (
                    (["-tls1_3"], "TLS_AES_128_GCM_SHA256"),
                    (["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"],
                     "TLS_AES_128_GCM_SHA256"),  # the server's order counts
                    (["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], "TLS_AES_256_GCM_SHA384"),
                    (["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "TLS_CHACHA20_POLY1305_SHA256"),
                    (["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_8_SHA256"], None),
                    (["-tls1_2"], "ECDHE-ECDSA-AES128-GCM-SHA256"),
                    (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], "ECDHE-ECDSA-AES256-GCM-SHA384"),
                    (["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], "ECDHE-ECDSA-CHACHA20-POLY1305"),
                    (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA:AES128-GCM-SHA256"], None),
                    (["-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"], None),
                    (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], None),
                    (["-tls1", "-cipher", "ALL:@SECLEVEL=0"], None)):
                self.assertEqual(self._probe(proxy, words), expected, words)

    def openssl_gets_nothing_to_resume_and_no_compression(self):
        self.need("openssl")
        with self.serve_tls(self.sparse(MIB), tcp=True) as server, StartTlsProxy(server) as proxy:
            folder = self.keys.client()
            for version in ("-tls1_2", "-tls1_3"):
                shown = self.run_tool("openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-CAfile",
                                      folder / "ca-cert.pem", "-cert", folder / "client-cert.pem", "-key",
                                      folder / "client-key.pem", version, "-comp")
                self.assertIn("Compression: NONE", shown)
                self.assertNotIn("TLS session ticket", shown)
                self.assertNotIn("New Session Ticket", shown)
                self.assertIn("Verify return code: 0 (ok)", shown)

    def openssl_may_not_renegotiate(self):
        self.need("openssl")
        with self.serve_tls(self.sparse(MIB), tcp=True) as server, StartTlsProxy(server) as proxy:
            folder = self.keys.client()
            done = subprocess.run(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-tls1_2", "-cert",
                 folder / "client-cert.pem", "-key", folder / "client-key.pem"], input="R\n", stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
            self.assertIn("RENEGOTIATING", done.stdout)
            self.assertIn("no renegotiation", done.stdout)
            self.run_tool("nbdinfo", self.keys.uri(server, self.keys.client()))

    def gnutls_agrees_on_modern_ciphers_only(self):
        self.need("gnutls-cli")
        with self.serve_tls(self.sparse(MIB), tcp=True) as server, StartTlsProxy(server) as proxy:
            folder = self.keys.client()
            key = dict([self.keys.psk.read_text().strip().split(":")])[PSK_USER]
            certificate = ["--x509cafile", folder / "ca-cert.pem", "--x509certfile", folder / "client-cert.pem",
                           "--x509keyfile", folder / "client-key.pem"]
            psk = ["--pskusername", PSK_USER, "--pskkey", key]
            for number, (priority, words, expected) in enumerate((
                    ("NORMAL", certificate, "TLSv1.3, TLS_AES_128_GCM_SHA256, CN=alice"),
                    ("NORMAL:-VERS-TLS1.3", certificate, "TLSv1.2, ECDHE-ECDSA-AES128-GCM-SHA256, CN=alice"),
                    ("NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC", certificate, "no TLS"),
                    ("NORMAL:-VERS-ALL:+VERS-TLS1.1:%VERIFY_ALLOW_BROKEN", certificate, "no TLS"),
                    ("NORMAL:-KX-ALL:+DHE-PSK:+ECDHE-PSK", psk, f"TLS_AES_128_GCM_SHA256, pre-shared key of {PSK_USER}"),
                    ("NORMAL:-VERS-TLS1.3:-KX-ALL:+DHE-PSK", psk,
                     f"TLSv1.2, DHE-PSK-AES128-GCM-SHA256, pre-shared key of {PSK_USER}"),
                    ("NORMAL:-VERS-TLS1.3:-KX-ALL:+PSK", psk, "no TLS"))):  # no forward secrecy
                done = subprocess.run(
                    ["gnutls-cli", "127.0.0.1", "--port", str(proxy.port), "--verify-hostname", "localhost",
                     "--priority", priority, *words],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                    timeout=60)
                # What the server says counts: gnutls-cli 3.7 dies of printing what it agreed by PSK and TLS 1.2.
                server.wait_for_log(r": (TLSv|no TLS)", count=number + 1)
                said = re.findall(r"[\d:]+: ((?:TLSv|no TLS).*)", server.log())[number]
                self.assertIn(expected, said, f"{priority}\n{done.stdout}")
                if words is certificate:
                    self.assertEqual("Handshake was completed" in done.stdout, expected != "no TLS", done.stdout)

    def large_requests_arrive_over_each_version(self):
        data = self.image(256 * KIB, "data").read_bytes()
        with self.serve_tls(self.sparse(4 * MIB), tcp=True) as server:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                handle = TlsClient.in_transmission(server, context=self.keys.context(version=version))
                handle.send(write(data, offset=777))
                self.assertEqual(handle.reply()[1], 0)
                self.assertEqual(handle.ask(READ, len(data), offset=777, length=len(data))[2], data)
                handle.close()


if __name__ == "__main__":
    served.main(Tls)
