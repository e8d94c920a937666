"""What is done to the server from outside while clients work."""
import collections
import os
import random
import signal
import threading
import time

PAUSE_S = (1, 4)   # between two faults
STOPPED_S = 0.5
FULL_S = 1.5
FAILING_S = 1.5
LONGEST_S = 3      # of a fault, about
PER_MILLE = 150    # of the operations in a part of the disk that fails


class Faults(threading.Thread):
    """Each kind in turn, shuffled, until the deadline."""

    def __init__(self, server, image, keys, seed, deadline, complaints):
        super().__init__()
        self._server, self._image, self._keys = server, image, keys
        self._deadline, self._complaints = deadline, complaints
        self._chance = random.Random(f"{seed} faults")
        self.counts = collections.Counter()
        self._deeds = [("new keys", self._exchange_keys), ("broken keys", self._break_keys),
                       ("stopped for a while", self._stop_for_a_while)]
        if image.can_be_filled:
            self._deeds.append(("file system full", self._fill_up))
        if image.is_served_failing:
            self._deeds += 2 * [("I/O errors", self._fail_in_places)]

    def run(self):
        try:
            self._run()
        except Exception as failure:  # Whatever it is, the run has failed and must say by what.
            self._complaints.add(f"faults: {type(failure).__name__}: {failure}")

    def _run(self):
        turn = []
        while True:
            pause = self._chance.uniform(*PAUSE_S)
            if time.monotonic() + pause + LONGEST_S > self._deadline or self._complaints.any():
                return
            time.sleep(pause)
            turn = turn or self._chance.sample(self._deeds, len(self._deeds))
            name, deed = turn.pop()
            deed()
            self.counts[name] += 1

    def _exchange_keys(self):
        with self._image.tools:
            self._keys.exchange(self._server)

    def _break_keys(self):
        self._keys.break_them(self._server, self._chance)

    def _stop_for_a_while(self):
        os.kill(self._server.pid, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        os.kill(self._server.pid, signal.SIGCONT)

    def _fill_up(self):
        with self._image.tools:
            self._image.fill_up()
            time.sleep(FULL_S)
            self._image.make_room()
            # A write that was refused a moment ago may still be on its way to its client.
            time.sleep(0.5)
            self._image.is_full.clear()

    def _fail_in_places(self):
        """In half of the slots, whoever works there; and a sync or two. Tools, which read everything, wait meanwhile."""
        controls = self._image.controls
        with self._image.tools:
            controls.fail(self._chance.sample(range(controls.regions), controls.regions // 2), PER_MILLE)
            controls.fail_syncs(self._chance.randrange(1, 3))
            time.sleep(FAILING_S)
            controls.stop()
            time.sleep(0.2)  # What was just to fail has done so.
