#!/usr/bin/python3
"""Clients that have agreed on everything and then say nothing cost no processor time, and as few bytes as README says."""
import re
import time
from pathlib import Path

import served
from crowd import allow_descriptors
from raw_client import READ, RawClient
from served import KIB
from tls_keys import TlsClient, TlsFacts

# README states 13 KiB and 55 KiB. What libraries keep for themselves differs a little from one version to the next.
PLAIN_BYTES_MAX, TLS_BYTES_MAX = 16 * KIB, 72 * KIB
SECONDS = 3
# It is nothing, or nearly so. A timer of every connection's that runs out once a second is a thousand times as much.
PROCESSOR_TIME_MAX_NS, WAKE_UPS_MAX = 2_000_000, 30


def _processor_time_ns(pid):
    """Of all its threads, by the process's own clock."""
    scheduler_clock = 2
    return time.clock_gettime_ns((~pid << 3) | scheduler_clock)


def _wake_ups(pid):
    """How often one of its threads has gone to sleep."""
    return sum(int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text()).group(1))
               for task in Path(f"/proc/{pid}/task").iterdir())


class Idle(TlsFacts):
    def a_thousand_idle_connections_use_no_processor_time_and_few_bytes_each(self):
        self._hold(RawClient.in_transmission, PLAIN_BYTES_MAX)

    def a_thousand_idle_connections_over_tls_use_no_processor_time_and_few_bytes_each(self):
        context = self.keys.context()
        self._hold(lambda server: TlsClient.in_transmission(server, context=context), TLS_BYTES_MAX, self.keys.options())

    def _hold(self, connect, bytes_max, options=()):
        count = 1000 if not served.is_sanitized() else 100  # They take a megabyte each, and their memory says nothing.
        if not allow_descriptors(count):
            self.skipTest(f"a process may not open {count} files here (ulimit -n)")
        limits = [word for name in ("--max-connections", "--max-per-address") for word in (name, 2 * count)]
        with self.serve(self.image(64 * KIB), *limits, *options) as server:
            held = [connect(server)]  # What the first one brings about is not each one's.
            alone = server.status("VmRSS")
            held += [connect(server) for _ in range(count)]
            time.sleep(0.5)  # The last of them is still being begun.
            bytes_each = (server.status("VmRSS") - alone) / count

            time_before, wake_ups_before = _processor_time_ns(server.pid), _wake_ups(server.pid)
            time.sleep(SECONDS)
            time_used = _processor_time_ns(server.pid) - time_before
            wake_ups = _wake_ups(server.pid) - wake_ups_before

            print(f"{bytes_each:.0f} bytes each, {time_used / 1000:.0f} us, {wake_ups} wake-ups in {SECONDS} s")
            self.assertLess(time_used, PROCESSOR_TIME_MAX_NS)
            self.assertLess(wake_ups, WAKE_UPS_MAX)
            if not served.is_sanitized():
                self.assertLess(bytes_each, bytes_max)
            for client in held[::count // 10]:
                self.assertEqual(client.ask(READ, 1, cookie=1, length=1)[:2], (1, 0))
            for client in held:
                client.close()


if __name__ == "__main__":
    served.main(Idle)
