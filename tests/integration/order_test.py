#!/usr/bin/python3
"""Recorded histories of the real server: random requests of several connections to the same few blocks, in whatever
order the machine carries them out, must have an explanation. A seed without one is printed with its story."""
import contextlib
import os
import signal
import subprocess
import threading
import time

import served
from served import MIB

RUNS = 120
SIZE = 8 * MIB  # some of the runs take 256 KiB


class Order(served.Facts):
    def _record(self, first_seed, runs, image, *servers):
        """The output of the recorder and its status."""
        done = subprocess.run([os.environ["AIONBD_RECORD"], str(first_seed), str(runs), image,
                               *(server.socket_path for server in servers)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False, timeout=110)
        print(done.stdout)
        return done

    def _expect_explanation(self, *options, size=SIZE, first_seed=1):
        image = self.sparse(size)
        with self.serve(image, *options) as server:
            done = self._record(first_seed, RUNS, image, server)
            self.assertEqual(done.returncode, 0, done.stdout)

    def histories_of_one_loop_have_an_explanation(self):
        self._expect_explanation("--threads", 1)

    @served.loops
    def histories_of_two_loops_have_an_explanation(self):
        self._expect_explanation("--threads", 2, first_seed=1001)

    @served.loops
    def histories_of_an_odd_sized_file_have_an_explanation(self):
        self._expect_explanation("--threads", 2, size=SIZE + 333, first_seed=2001)

    def histories_of_buffered_io_have_an_explanation(self):
        self._expect_explanation("--io", "buffered", "--threads", 2, first_seed=3001)

    def clients_of_two_disks_that_pretend_to_be_one_are_noticed(self):
        with self.serve(self.sparse(SIZE)) as one, self.serve(self.sparse(SIZE, "other.img")) as other:
            done = self._record(1, RUNS, self.folder / "sparse.img", one, other)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("has no explanation", done.stdout)
            self.assertIn("again, if the machine does its part: record ", done.stdout)

    # Servers that go and come back

    def histories_go_on_over_servers_that_are_killed(self):
        self._expect_explanation_of_restarts(signal.SIGKILL, 4001)

    def histories_go_on_over_servers_that_are_told_to_stop(self):
        self._expect_explanation_of_restarts(signal.SIGTERM, 5001)

    def _expect_explanation_of_restarts(self, which, first_seed):
        """Nothing that was answered is lost, nothing of the old server comes late, and no start needs a repair."""
        image, place = self.sparse(SIZE + 333), self.free_socket()
        arguments = ["--unix", place, "--threads", 2, image]
        is_over, found = threading.Event(), []
        with contextlib.ExitStack() as last:
            server = last.enter_context(served.Server(self.sockets, arguments))

            def record():
                try:
                    found.append(self._record(first_seed, RUNS, image, server))
                finally:
                    is_over.set()
            recorder = threading.Thread(target=record)
            recorder.start()
            restarts, pause_s = 0, 0.05
            while not is_over.is_set():
                time.sleep(pause_s)
                server.signal(which)
                ended = server.wait()
                self.assertEqual(ended, 0 if which == signal.SIGTERM else -which)
                server = last.enter_context(served.Server(self.sockets, arguments))
                restarts += 1
                # Rarer and rarer, so that the recorder comes to its end.
                pause_s *= 1.1
            recorder.join()
        self.assertEqual(found[0].returncode, 0, found[0].stdout)
        self.assertGreater(restarts, 1)


if __name__ == "__main__":
    served.main(Order)
