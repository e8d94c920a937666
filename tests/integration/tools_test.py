#!/usr/bin/python3
"""The tools of libnbd and QEMU, as people use them."""
import json
import re

import served
from served import KIB, MIB

ODD = 10 * MIB + 333


class Tools(served.Facts):
    # nbdinfo

    def nbdinfo_shows_the_exact_size(self):
        with self.serve(self.sparse(ODD)) as server:
            self.assertEqual(self.run_tool("nbdinfo", "--size", server.uri).strip(), str(ODD))

    def nbdinfo_shows_what_a_writable_export_can_do(self):
        with self.serve(self.sparse(MIB)) as server:
            export = json.loads(self.run_tool("nbdinfo", "--json", server.uri))["exports"][0]
        self.assertEqual(export["export-size"], MIB)
        for ability in ("can_flush", "can_fua", "can_trim", "can_zero", "can_fast_zero", "can_multi_conn"):
            self.assertIs(export[ability], True, ability)
        self.assertIs(export["is_read_only"], False)

    def nbdinfo_shows_what_a_read_only_export_can_do(self):
        with self.serve(self.sparse(MIB), "--read-only") as server:
            export = json.loads(self.run_tool("nbdinfo", "--json", server.uri))["exports"][0]
        self.assertIs(export["is_read_only"], True)
        self.assertIs(export["can_multi_conn"], True)
        for ability in ("can_trim", "can_zero"):
            self.assertIs(export[ability], False, ability)

    def nbdinfo_shows_the_block_sizes(self):
        with self.serve(self.sparse(MIB)) as server:
            export = json.loads(self.run_tool("nbdinfo", "--json", server.uri))["exports"][0]
        self.assertEqual(export["block_size_minimum"], 1)
        self.assertEqual(export["block_size_preferred"], 4096)
        self.assertEqual(export["block_size_maximum"], 32 * MIB)

    def nbdinfo_lists_the_export_with_its_name_and_description(self):
        with self.serve(self.sparse(MIB), "--name", "größe", "--description", "a disk, for example") as server:
            exports = json.loads(self.run_tool("nbdinfo", "--list", "--json", server.uri))["exports"]
        self.assertEqual([each["export-name"] for each in exports], ["größe"])
        self.assertEqual(exports[0]["description"], "a disk, for example")

    def nbdinfo_sees_newstyle_fixed_over_tcp(self):
        with self.serve(self.sparse(MIB), tcp=True) as server:
            shown = self.run_tool("nbdinfo", server.uri)
        self.assertIn("protocol: newstyle-fixed without TLS", shown)
        self.assertIn("export-size: 1048576", shown)

    def an_unknown_export_is_refused(self):
        with self.serve(self.sparse(MIB), "--name", "disk") as server:
            other = server.uri.replace("nbd+unix:///", "nbd+unix:///other")
            self.assertIn("other", self.run_tool("nbdinfo", other, status=1))

    # nbdcopy

    def nbdcopy_fetches_an_odd_size_over_several_connections(self):
        image = self.image(ODD)
        copy = self.folder / "copy"
        with self.serve(image) as server:
            self.run_tool("nbdcopy", "--connections=4", server.uri, copy)
        self.assert_same_bytes(copy.read_bytes(), image.read_bytes())

    def nbdcopy_fetches_over_tcp(self):
        image = self.image(ODD)
        copy = self.folder / "copy"
        with self.serve(image, tcp=True) as server:
            self.run_tool("nbdcopy", server.uri, copy)
        self.assert_same_bytes(copy.read_bytes(), image.read_bytes())

    def nbdcopy_stores_an_odd_size_over_several_connections(self):
        source = self.image(ODD, "source")
        image = self.sparse(ODD)
        with self.serve(image) as server:
            self.run_tool("nbdcopy", "--connections=4", "--flush", source, server.uri)
        self.assert_same_bytes(image.read_bytes(), source.read_bytes())

    def nbdcopy_of_a_sparse_source_overwrites_what_was_there(self):
        source = self.sparse(8 * MIB, "source")
        with open(source, "r+b") as opened:
            opened.seek(3 * MIB + 7)
            opened.write(b"data between holes")
        image = self.image(8 * MIB)
        with self.serve(image) as server:
            self.run_tool("nbdcopy", "--sparse=4096", source, server.uri)
        self.assert_same_bytes(image.read_bytes(), source.read_bytes())

    def nbdcopy_leaves_a_sparse_image_sparse(self):
        source = self.sparse(8 * MIB, "source")
        with open(source, "r+b") as opened:
            opened.seek(5 * MIB)
            opened.write(b"x" * 4096)
        image = self.image(8 * MIB)
        with self.serve(image) as server:
            self.run_tool("nbdcopy", source, server.uri)
        self.assert_same_bytes(image.read_bytes(), source.read_bytes())
        self.assertLess(image.stat().st_blocks * 512, MIB)

    def nbdcopy_connects_two_servers(self):
        source = self.image(4 * MIB + 1, "source")
        image = self.sparse(4 * MIB + 1)
        with self.serve(source, "--read-only") as first, self.serve(image, tcp=True) as second:
            self.run_tool("nbdcopy", first.uri, second.uri)
        self.assert_same_bytes(image.read_bytes(), source.read_bytes())

    # nbdsh

    def nbdsh_reads_back_what_it_wrote(self):
        image = self.sparse(MIB)
        with self.serve(image) as server:
            self.run_tool("nbdsh", "--uri", server.uri, "--command", "h.pwrite(b'hello', 12345)", "--command",
                          "assert h.pread(7, 12344) == b'\\0hello\\0'")
        self.assertEqual(image.read_bytes()[12344:12351], b"\0hello\0")

    # qemu-img and qemu-io

    def qemu_img_converts_from_an_export(self):
        image = self.image(8 * MIB + 512)
        copy = self.folder / "copy.qcow2"
        with self.serve(image) as server:
            self.run_tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri, copy)
        self.run_tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, copy)

    def qemu_img_converts_into_an_export(self):
        source = self.image(8 * MIB, "source")
        image = self.sparse(8 * MIB)
        with self.serve(image) as server:
            self.run_tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, server.uri)
        self.assert_same_bytes(image.read_bytes(), source.read_bytes())

    def qemu_img_compares_an_export_with_its_copy(self):
        image = self.image(ODD)
        copy = self.image(image.read_bytes(), "copy")
        with self.serve(image) as server:
            self.assertIn("identical", self.run_tool("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, copy))
            with open(copy, "r+b") as opened:
                opened.seek(5 * MIB)
                opened.write(b"different")
            self.run_tool("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, copy, status=1)

    def qemu_img_shows_the_size(self):
        with self.serve(self.sparse(ODD)) as server:
            shown = json.loads(self.run_tool("qemu-img", "info", "--output=json", server.uri))
        # QEMU counts in sectors of 512 and rounds up.
        self.assertEqual(shown["virtual-size"], (ODD + 511) // 512 * 512)
        self.assertEqual(shown["format"], "raw")

    def qemu_img_maps_an_export(self):
        with self.serve(self.image(MIB)) as server:
            extents = json.loads(self.run_tool("qemu-img", "map", "--output=json", "-f", "raw", server.uri))
        self.assertEqual(sum(each["length"] for each in extents), MIB)

    def qemu_img_bench_reads_and_writes(self):
        with self.serve(self.sparse(64 * MIB)) as server:
            for options in ([], ["-w", "--pattern=7"], ["-w", "--flush-interval=100"], ["-s", "65536", "-d", "16"]):
                shown = self.run_tool("qemu-img", "bench", "-f", "raw", "-c", "500", *options, server.uri)
                self.assertIn("Run completed", shown)

    def qemu_img_bench_writes_its_pattern(self):
        image = self.sparse(4 * MIB)
        with self.serve(image) as server:
            self.run_tool("qemu-img", "bench", "-f", "raw", "-w", "--pattern=7", "-c", "64", "-s", 64 * KIB, server.uri)
        self.assert_same_bytes(image.read_bytes(), b"\7" * (4 * MIB))

    def qemu_io_verifies_unaligned_patterns(self):
        with self.serve(self.sparse(4 * MIB)) as server:
            shown = self.run_tool(
                "qemu-io", "-f", "raw", "-c", "write -P 1 0 4M", "-c", "write -P 2 1000 3000", "-c", "write -z 70000 9000",
                "-c", "discard 1M 64k", "-c", "flush", "-c", "read -P 2 1000 3000", "-c", "read -P 1 4000 66000",
                "-c", "read -P 0 70000 9000", "-c", "read -P 1 79000 4096", server.uri)
        self.assertNotIn("fail", shown)
        self.assertEqual(len(re.findall(r"^read \d+/\d+ bytes", shown, re.MULTILINE)), 4)


if __name__ == "__main__":
    served.main(Tools)
