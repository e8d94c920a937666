#!/usr/bin/python3
"""Debian 13's libnbd and QEMU, which speak extended headers, from a tree that debian13.sh makes (tests/run.sh calls it)."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import served
from counting_proxy import CountingProxy
from interop_test import DATA, EVERY_COMMAND, EXPORTS, HOLE_AND_ZERO, make
from served import GIB, KIB, MIB

TIB = GIB << 10
EXTENDED_REQUEST = b"\x21\xe4\x1c\x71"
# The test's folder and its sockets, as the tree sees them.
FILES, SOCKETS = "/srv", "/mnt"
BY_NAME = {export.name: export for export in EXPORTS}


class NewerClients(served.Facts):
    def _enter(self):
        """The words that run a program in the tree: in a mount namespace of its own, so that the mounts go when it ends."""
        self.need("unshare", "chroot", "mount")
        tree = os.environ.get("AIONBD_DEBIAN_13", "")
        if not os.path.exists(f"{tree}/.complete"):
            missing = Path(f"{tree}.missing")
            self.skipTest(missing.read_text(encoding="utf-8").strip() if missing.exists() else
                          f"no Debian 13 tree: tests/integration/debian13.sh {tree or 'TREE'} makes one")
        mounts = 'mount --bind "$1" "$3$4" && mount --bind "$2" "$3$5" && cd / && tree=$3 && shift 5 && exec chroot "$tree" "$@"'
        words = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]),
                 "sh", "-c", mounts, "sh", self.folder, self.sockets, tree, FILES, SOCKETS]
        tried = subprocess.run([*words, "bash", "-c", ":"], stderr=subprocess.PIPE, text=True, check=False)
        if tried.returncode != 0:
            self.skipTest(f"no program can be run in another tree here: {tried.stderr.strip()}")
        return words

    def _run_inside(self, *command, **how):
        return self.run_tool(*self._enter(), *command, **how)

    def _serve_export(self, export):
        self._image = make(export, self.folder / "disk.img")
        return self.serve(self._image, *export.options)

    @staticmethod
    def _uri_inside(server_or_proxy):
        """Where it is for programs in the tree."""
        path = Path(server_or_proxy.uri.partition("socket=")[2])
        return f"nbd+unix:///?socket={SOCKETS}/{path.name}"

    def _nbdsh(self, server, *lines, **how):
        words = [word for line in lines for word in ("--command", line)]
        return self._run_inside("nbdsh", *words, env={**os.environ, "EXPORT_URI": self._uri_inside(server), **how})

    def _nbdsh_with_a_map(self, server, *lines):
        begin = ["import os", "h.add_meta_context('base:allocation')", "h.connect_uri(os.environ['EXPORT_URI'])",
                 "assert h.get_extended_headers_negotiated()",
                 "def told(ask, *words):\n  found = []\n  ask(*words, lambda c, o, entries, e: found.extend(entries))\n"
                 "  return found"]
        return self._nbdsh(server, *begin, *lines)

    # libnbd

    def nbdinfo_uses_extended_packets(self):
        with self.serve(self.image(MIB)) as server:
            shown = self._run_inside("nbdinfo", self._uri_inside(server))
            self.assertIn("using extended packets", shown)
            self.assertIn("base:allocation", shown)

    def nbdinfo_shows_the_map(self):
        export = BY_NAME["an_odd_sized_export"]
        with self._serve_export(export) as server:
            told = json.loads(self._run_inside("nbdinfo", "--map", "--json", self._uri_inside(server)))
        self.assertEqual([(each["offset"], each["length"], each["type"]) for each in told], list(export.extents()))

    def every_libnbd_command_with_extended_headers(self):
        self._every_libnbd_command("an_odd_sized_export")

    def every_libnbd_command_with_extended_headers_on_a_read_only_export(self):
        self._every_libnbd_command("a_read_only_export")

    def _every_libnbd_command(self, name):
        export = BY_NAME[name]
        shutil.copy(EVERY_COMMAND, self.folder)
        with self._serve_export(export) as server:
            for replies in ("extended", "structured"):
                self._nbdsh(server, f"exec(open('{FILES}/{EVERY_COMMAND.name}').read())", REPLIES=replies,
                            WRITABLE="yes" if export.is_writable else "no")

    def zeroes_and_trims_of_terabytes_are_one_request_each(self):
        image = self.sparse(8 * TIB)
        with open(image, "r+b") as opened:
            for at in (0, TIB, 8 * TIB - 4096):
                os.pwrite(opened.fileno(), b"x" * 4096, at)
        with self.serve(image) as server:
            self._nbdsh_with_a_map(
                server, f"h.zero({6 * TIB}, 4096, nbd.CMD_FLAG_FAST_ZERO)",
                f"assert told(h.block_status_64, {8 * TIB}, 0) == [(4096, 0), ({8 * TIB - 8192}, 3), (4096, 0)]",
                f"h.trim({8 * TIB}, 0, nbd.CMD_FLAG_FUA)",
                f"assert told(h.block_status_64, {8 * TIB}, 0) == [({8 * TIB}, 3)]",
                f"assert told(h.block_status_64, {7 * TIB}, 1) != []",
                f"assert h.pread(4096, {TIB}) == bytes(4096)")

    def block_status_may_name_its_contexts(self):
        with self.serve(self.sparse(MIB)) as server:
            self._nbdsh_with_a_map(
                server, "assert h.can_block_status_payload()",
                f"assert told(h.block_status_filter, {MIB}, 0, ['base:allocation']) == [({MIB}, 3)]",
                f"assert told(h.block_status_64, {MIB}, 0) == [({MIB}, 3)]")

    def nbdcopy_fetches_and_stores(self):
        export = BY_NAME["an_odd_sized_export"]
        with self._serve_export(export) as server:
            self._run_inside("nbdcopy", self._uri_inside(server), f"{FILES}/copy.img")
            self.assert_same_bytes((self.folder / "copy.img").read_bytes(), self._image.read_bytes())
            source = self.image(b"\5" * 100_000 + bytes(export.size - 100_000), "source.img")
            self._run_inside("nbdcopy", "--flush", f"{FILES}/source.img", self._uri_inside(server))
        self.assert_same_bytes(self._image.read_bytes(), source.read_bytes())

    # QEMU

    def _expect_extended_headers(self, proxy):
        self.assertIn(EXTENDED_REQUEST, proxy.beginning)

    def qemu_img_maps_with_extended_headers(self):
        export = BY_NAME["a_sparse_export"]
        with self._serve_export(export) as server, CountingProxy(server, self.free_socket()) as proxy:
            told = json.loads(self._run_inside("qemu-img", "map", "--output=json", "-f", "raw", self._uri_inside(proxy)))
            self._expect_extended_headers(proxy)
        self.assertEqual([(each["start"], each["length"], each["data"], each["zero"]) for each in told],
                         [(at, length, state != HOLE_AND_ZERO, state != DATA) for at, length, state in export.extents()])

    def qemu_img_converts_both_ways_with_extended_headers(self):
        source = self.sparse(64 * GIB, "source.img")
        with open(source, "r+b") as opened:
            for at in (0, 20 * GIB + 512, 64 * GIB - MIB):
                os.pwrite(opened.fileno(), os.urandom(MIB - 4096), at)
        image = self.sparse(64 * GIB)
        with open(image, "r+b") as opened:
            os.pwrite(opened.fileno(), b"old" * MIB, 30 * GIB)
        with self.serve(image) as server, CountingProxy(server, self.free_socket()) as proxy:
            self._run_inside("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", f"{FILES}/source.img",
                            self._uri_inside(proxy))
            self._run_inside("qemu-img", "convert", "-S", "64k", "-f", "raw", "-O", "raw", self._uri_inside(proxy),
                            f"{FILES}/copy.img")
            self._expect_extended_headers(proxy)
            self.assertLess(proxy.bytes, 6 * MIB + 256 * KIB)
        for copy in (image, self.folder / "copy.img"):
            self.run_tool("qemu-img", "compare", "-f", "raw", "-F", "raw", source, copy)
            self.assertLess(copy.stat().st_blocks * 512, 4 * MIB)


if __name__ == "__main__":
    served.main(NewerClients)
