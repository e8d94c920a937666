#!/usr/bin/python3
"""fio's nbd engine, which reads back and verifies what it wrote."""
import json

import served
from served import MIB


class Fio(served.Facts):
    def _verify(self, *options, tcp=False, jobs=1, size=16 * MIB, threads=1):
        """Each job has a connection and a region of its own; everything written must be read back."""
        self.need("fio")
        with self.serve(self.sparse(jobs * size), "--threads", threads, tcp=tcp) as server:
            shown = self.run_tool(
                "fio", "--name=job", "--ioengine=nbd", f"--uri={server.uri}", f"--size={size}", "--iodepth=16",
                f"--numjobs={jobs}", f"--offset_increment={size}", "--verify=crc32c", "--do_verify=1",
                "--verify_fatal=1", "--randseed=7", *options, "--output-format=json", cwd=self.folder)
            server.wait_for_log("serving export", count=2 * jobs)
        results = json.loads(shown[shown.index("{"):])["jobs"]
        self.assertEqual(len(results), jobs)
        for each in results:
            self.assertEqual(each["error"], 0)
            self.assertGreater(each["read"]["io_bytes"], size * 0.9)

    def random_writes_of_whole_sectors_verify(self):
        self._verify("--rw=randwrite", "--bsrange=512-128k")

    def random_writes_of_unaligned_sizes_verify(self):
        self._verify("--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=1")

    def mixed_reads_and_writes_of_unaligned_sizes_verify(self):
        self._verify("--rw=randrw", "--bsrange=73-65536", "--bs_unaligned=1")

    def sequential_writes_that_share_every_block_verify(self):
        self._verify("--rw=write", "--bs=4097", "--bs_unaligned=1", size=4 * MIB)

    def random_writes_of_unaligned_sizes_verify_over_tcp(self):
        self._verify("--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=1", tcp=True)

    def large_writes_verify_over_tcp(self):
        self._verify("--rw=randwrite", "--bs=1m", tcp=True, size=64 * MIB)

    def unaligned_writes_of_4_connections_verify(self):
        self._verify("--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=1", jobs=4)

    def unaligned_writes_of_4_connections_verify_over_tcp(self):
        self._verify("--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=1", jobs=4, tcp=True)

    def mixed_requests_of_4_connections_verify(self):
        self._verify("--rw=randrw", "--bsrange=512-128k", jobs=4)

    def regions_that_meet_inside_a_block_verify(self):
        self._verify("--rw=write", "--bs=3001", "--bs_unaligned=1", jobs=4, size=300100)

    @served.loops
    def unaligned_writes_of_4_connections_on_2_loops_verify(self):
        self._verify("--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=1", jobs=4, threads=2)


if __name__ == "__main__":
    served.main(Fio)
