#!/usr/bin/python3
"""The tools of libnbd and QEMU, as people use them; interop_test.py has each on every kind of export."""
import json

import served
from served import KIB, MIB

ODD = 10 * MIB + 333


class Tools(served.Facts):
    # nbdinfo

    def nbdinfo_shows_the_exact_size(self):
        with self.serve(self.sparse(ODD)) as server:
            self.assertEqual(self.run_tool("nbdinfo", "--size", server.uri).strip(), str(ODD))

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

    def nbdcopy_connects_two_servers(self):
        source = self.image(4 * MIB + 1, "source")
        image = self.sparse(4 * MIB + 1)
        with self.serve(source, "--read-only") as first, self.serve(image, tcp=True) as second:
            self.run_tool("nbdcopy", first.uri, second.uri)
        self.assert_same_bytes(image.read_bytes(), source.read_bytes())

    # qemu-img

    def qemu_img_shows_the_size(self):
        with self.serve(self.sparse(ODD)) as server:
            shown = json.loads(self.run_tool("qemu-img", "info", "--output=json", server.uri))
        # QEMU counts in sectors of 512 and rounds up.
        self.assertEqual(shown["virtual-size"], (ODD + 511) // 512 * 512)
        self.assertEqual(shown["format"], "raw")

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


if __name__ == "__main__":
    served.main(Tools)
