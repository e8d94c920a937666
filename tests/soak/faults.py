"""What is done to the server from outside while clients work."""
import os
import random
import signal
import threading
import time

PAUSE_S = (2, 6)   # between two faults
STOPPED_S = 0.5
FULL_S = 1.5


class Faults(threading.Thread):
    def __init__(self, server, image, crowd, seed, deadline, seen, complaints):
        super().__init__()
        self._server, self._image, self._deadline = server, image, deadline
        self._crowd, self._seen, self._complaints = crowd, seen, complaints
        self._chance = random.Random(f"{seed} faults")
        self._counts = {}

    def summary(self):
        return ", ".join(f"{count} x {what}" for what, count in sorted(self._counts.items())) or "no faults"

    def run(self):
        deeds = [("SIGHUP", self._hang_up), ("stopped for a while", self._stop_for_a_while)]
        if self._image.can_be_filled:
            deeds.append(("file system full", self._fill_up))
        while True:
            pause = self._chance.uniform(*PAUSE_S)
            if time.monotonic() + pause + FULL_S + 1 > self._deadline or self._complaints.any():
                return
            time.sleep(pause)
            name, deed = self._chance.choice(deeds)
            deed()
            self._counts[name] = self._counts.get(name, 0) + 1

    def _hang_up(self):
        os.kill(self._server.pid, signal.SIGHUP)

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
