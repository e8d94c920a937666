#!/usr/bin/python3
"""The tools of libnbd, QEMU and fio, each on every kind of export."""
import dataclasses
import json
import os
import random
import re
from pathlib import Path

import served
from served import KIB, MIB

SIZE = 4 * MIB
DATA, HOLE_AND_ZERO, ZERO = 0, 3, 2  # base:allocation's words for data, holes and unwritten space
EVERY_COMMAND = Path(__file__).parent / "every_libnbd_command.py"


@dataclasses.dataclass(frozen=True)
class Export:
    name: str
    map: tuple  # ((length, DATA, HOLE_AND_ZERO or ZERO), ...)
    options: tuple = ()

    @property
    def size(self):
        return sum(length for length, _ in self.map)

    @property
    def is_writable(self):
        return "--read-only" not in self.options

    def extents(self):
        """(offset, length, state) of each."""
        at = 0
        for length, state in self.map:
            yield at, length, state
            at += length


_HOLES = ((MIB, HOLE_AND_ZERO), (64 * KIB, DATA), (MIB, HOLE_AND_ZERO), (MIB, ZERO), (512 * KIB, DATA),
          (448 * KIB, HOLE_AND_ZERO))
EXPORTS = (
    Export("a_dense_export", ((SIZE, DATA),)),
    Export("a_sparse_export", _HOLES),
    Export("a_preallocated_export", ((SIZE, ZERO),)),
    Export("an_odd_sized_export", (*_HOLES, (333, DATA))),
    Export("a_read_only_export", _HOLES, ("--read-only",)),
)


def make(export, path):
    generator = random.Random(5)
    with open(path, "xb") as opened:
        opened.truncate(export.size)
        for at, length, state in export.extents():
            if state == ZERO:
                os.posix_fallocate(opened.fileno(), at, length)
            elif state == DATA:
                os.pwrite(opened.fileno(), generator.randbytes(length), at)
        os.fsync(opened.fileno())
    return path


class Interop(served.Facts):
    def _serve_export(self, export):
        self._image = make(export, self.folder / "disk.img")
        self._content = self._image.read_bytes()
        return self.serve(self._image, *export.options)

    def _source(self, export):
        """Something else of the same size, with holes and data where the export has data and holes."""
        path = self.folder / "source.img"
        with open(path, "xb") as opened:
            opened.truncate(export.size)
            for at in range(0, export.size - 99_000, 500_000):
                os.pwrite(opened.fileno(), random.Random(at).randbytes(99_000), at)
        return path

    def _expect_as_sparse(self, copy, export):
        data = sum(length for length, state in export.map if state == DATA)
        self.assertLessEqual(copy.stat().st_blocks * 512, data + 256 * KIB)

    def _expect_refusal(self, *command):
        self.run_tool(*command, status=1)
        self.assert_same_bytes(self._image.read_bytes(), self._content)

    # libnbd

    def _nbdinfo_json(self, export):
        with self._serve_export(export) as server:
            shown = json.loads(self.run_tool("nbdinfo", "--json", server.uri))
        self.assertEqual((shown["protocol"], shown["structured"]), ("newstyle-fixed", True))
        told = shown["exports"][0]
        self.assertEqual(told["export-size"], export.size)
        self.assertIs(told["is_read_only"], not export.is_writable)
        for ability in ("can_flush", "can_multi_conn", "can_df"):
            self.assertIs(told[ability], True, ability)
        for ability in ("can_fua", "can_trim", "can_zero", "can_fast_zero"):
            self.assertIs(told[ability], export.is_writable, ability)
        self.assertIs(told["can_cache"], False)
        self.assertEqual((told["block_size_minimum"], told["block_size_preferred"], told["block_size_maximum"]),
                         (1, 4096, 32 * MIB))
        self.assertEqual(told["contexts"], ["base:allocation"])

    def _nbdinfo_list(self, export):
        with self._serve_export(export) as server:
            told = json.loads(self.run_tool("nbdinfo", "--list", "--json", server.uri))["exports"]
        self.assertEqual([(each["export-name"], each["export-size"]) for each in told], [("", export.size)])

    def _nbdinfo_map(self, export):
        with self._serve_export(export) as server:
            told = json.loads(self.run_tool("nbdinfo", "--map", "--json", server.uri))
            totals = json.loads(self.run_tool("nbdinfo", "--map", "--totals", "--json", server.uri))
        self.assertEqual([(each["offset"], each["length"], each["type"]) for each in told], list(export.extents()))
        self.assertEqual(sum(each["size"] for each in totals), export.size)

    def _nbdcopy_fetches(self, export):
        copy = self.folder / "copy.img"
        with self._serve_export(export) as server:
            self.run_tool("nbdcopy", server.uri, copy)
        self.assert_same_bytes(copy.read_bytes(), self._content)
        self._expect_as_sparse(copy, export)

    def _nbdcopy_stores(self, export):
        with self._serve_export(export) as server:
            source = self._source(export)
            if not export.is_writable:
                return self._expect_refusal("nbdcopy", source, server.uri)
            self.run_tool("nbdcopy", "--flush", source, server.uri)
        self.assert_same_bytes(self._image.read_bytes(), source.read_bytes())
        self.assertLessEqual(self._image.stat().st_blocks, source.stat().st_blocks + 64)
        return None

    def _every_libnbd_command(self, export, replies):
        with self._serve_export(export) as server:
            environment = {"EXPORT_URI": server.uri, "REPLIES": replies, "WRITABLE": "yes" if export.is_writable else "no"}
            self.run_tool("nbdsh", "--command", f"exec(open({str(EVERY_COMMAND)!r}).read())",
                          env={**os.environ, **environment})
        if not export.is_writable:
            self.assert_same_bytes(self._image.read_bytes(), self._content)

    def _every_libnbd_command_with_simple_replies(self, export):
        self._every_libnbd_command(export, "simple")

    def _every_libnbd_command_with_structured_replies(self, export):
        self._every_libnbd_command(export, "structured")

    # QEMU

    def _qemu_img_map(self, export):
        with self._serve_export(export) as server:
            told = json.loads(self.run_tool("qemu-img", "map", "--output=json", "-f", "raw", server.uri))
        wanted = [(at, length, state != HOLE_AND_ZERO, state != DATA) for at, length, state in export.extents()]
        if export.size % 512 != 0:  # QEMU counts in sectors of 512, and fills the last.
            wanted.append((export.size, -export.size % 512, False, True))
        self.assertEqual([(each["start"], each["length"], each["data"], each["zero"]) for each in told], wanted)

    def _qemu_img_converts_from_it(self, export):
        copies = self.folder / "copy.img", self.folder / "copy.qcow2"
        with self._serve_export(export) as server:
            for copy in copies:
                self.run_tool("qemu-img", "convert", "-S", "4k", "-f", "raw", "-O", copy.suffix[1:].replace("img", "raw"),
                              server.uri, copy)
        self.assert_same_bytes(copies[0].read_bytes()[:export.size], self._content)
        self._expect_as_sparse(copies[0], export)
        self.run_tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", self._image, copies[1])

    def _qemu_img_converts_to_it(self, export):
        with self._serve_export(export) as server:
            source = self._source(export)
            command = ("qemu-img", "convert", "-n", "-S", "4k", "-f", "raw", "-O", "raw", source, server.uri)
            if not export.is_writable:
                return self._expect_refusal(*command)
            # QEMU 7.2 insists on whole sectors of 512, and that the last one be written whole.
            is_odd = export.size % 512 != 0
            said = self.run_tool(*command, status=1 if is_odd else 0)
            if is_odd:
                self.assertIn("No space left on device", said)
        written = export.size // MIB * MIB if is_odd else export.size
        self.assert_same_bytes(self._image.read_bytes()[:written], source.read_bytes()[:written])
        return None

    def _qemu_img_compare(self, export):
        with self._serve_export(export) as server:
            other = self.image(self._content, "other.img")
            command = ("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, other)
            self.assertIn("identical", self.run_tool(*command))
            with open(other, "r+b") as opened:
                opened.seek(export.size - 1)
                opened.write(b"\x99")
            self.assertIn("mismatch", self.run_tool(*command, status=1))

    def _qemu_img_dd(self, export):
        with self._serve_export(export) as server:
            # One or the other: QEMU 7.2 counts what it skips.
            for word, begin, end in (("skip=200", 200 * 4096, export.size), ("count=300", 0, 300 * 4096)):
                copy = self.folder / word
                self.run_tool("qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=4096", word, f"if={server.uri}", f"of={copy}")
                self.assert_same_bytes(copy.read_bytes()[:end - begin], self._content[begin:end])

    def _qemu_io(self, export):
        """Patterns, zeroes that may and that may not make holes (-u, -n), FUA (-f), discard."""
        reads = ("read 0 4M", "read 1000 3000", "map", "length", "flush")
        changes = ("write -P 1 0 4M", "write -f -P 2 1000 3000", "write -z 70000 9000", "write -z -u 1M 64k",
                   "write -z -f 1200k 4k", "write -z -n 1300k 64k", "discard 2M 64k", "discard 3000000 5000", "flush",
                   "read -P 2 1000 3000", "read -P 1 4000 66000", "read -P 0 70000 9000", "read -P 0 1M 64k",
                   "read -P 1 79000 4096", "read -P 0 1200k 4k", "read -P 0 1300k 64k", "aio_write -P 4 3M 100k",
                   "aio_flush", "read -P 4 3M 100k")
        with self._serve_export(export) as server:
            def ask(*commands, options=(), status=0):
                words = [word for command in commands for word in ("-c", command)]
                return self.run_tool("qemu-io", "-f", "raw", *options, *words, server.uri, status=status)

            self.assertNotIn("fail", ask(*reads, options=["-r"]))
            if not export.is_writable:
                return self._expect_refusal("qemu-io", "-f", "raw", "-c", "write 0 512", server.uri)
            shown = ask(*reads, *changes, options=["-d", "unmap"])
        self.assertIsNone(re.search("fail|error", shown), shown)
        self.assertEqual(len(re.findall(r"^read \d+/\d+ bytes", shown, re.MULTILINE)),
                         len([word for word in reads + changes if word.startswith("read")]))
        return None

    # fio

    def _fio_nbd_engine(self, export):
        self.need("fio")
        load = (["--rw=randwrite", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1"] if export.is_writable
                else ["--rw=randread", "--readonly"])
        with self._serve_export(export) as server:
            shown = self.run_tool("fio", "--name=job", "--ioengine=nbd", f"--uri={server.uri}", f"--size={export.size}",
                                  "--iodepth=16", "--bsrange=512-64k", "--bs_unaligned=1", "--randseed=7", *load,
                                  "--output-format=json", cwd=self.folder)
        job = json.loads(shown[shown.index("{"):])["jobs"][0]
        self.assertEqual(job["error"], 0)
        self.assertGreater(job["read"]["io_bytes"], export.size * 0.9)


TOOLS = [name for name in vars(Interop) if hasattr(Interop, name) and name.startswith("_") and
         re.match("_(nbd|every_libnbd_command_with|qemu|fio)", name)]


def _fact(tool, export):
    return lambda self: getattr(self, tool)(export)


for _tool in TOOLS:
    for _export in EXPORTS:
        setattr(Interop, f"{_tool[1:]}_on_{_export.name}", _fact(_tool, _export))

if __name__ == "__main__":
    served.main(Interop)
