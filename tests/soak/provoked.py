"""Which errors of a file that fails (failing_file.py) a client must see, and which it may."""
import errno
import threading


class Ledger:
    """What has failed, and who was told, in one server's life, which knows nothing of what was before. Failed syncs and failed
    durable writes are counted together, for so the server does."""

    def __init__(self, controls):
        self._controls = controls
        self._lock = threading.Lock()
        self.begin_life()

    def begin_life(self):
        self._before = self._controls.failed_syncs() + self._controls.failed_durable_everywhere()
        self._durable_before, self._failed_before = self._controls.failed_durable_everywhere(), self._controls.failed_everywhere()
        self._told = self._told_durable = self._known = 0

    def tell(self, failed, durable):
        """So many operations of a request failed, and its client knows that it did."""
        with self._lock:
            self._told += failed
            self._told_durable += durable

    def untold(self):
        """Operations that failed and nobody knows."""
        return self._controls.failed_everywhere() - self._failed_before - self._told

    def failed_syncs(self):
        return self._controls.failed_syncs() + self._controls.failed_durable_everywhere() - self._before

    def known_to_flushes(self):
        """So many at least a flush that begins now has to tell. A sync that fails is counted before the server hears of it;
        but a flush waits for the sync that runs. A durable write waits for nobody, so until its client has been told, one
        cannot say."""
        with self._lock:
            syncs = self._controls.failed_syncs()
            durable = self._controls.failed_durable_everywhere()
            if self._told_durable >= durable - self._durable_before:
                self._known = syncs + durable - self._before
            return self._known


class Expectations:
    """Of one connection that is about to be made, the only one in its region of the file, with one request at a time."""

    def __init__(self, controls, ledger, region):
        self._controls, self._ledger, self._region = controls, ledger, region
        # Between these, as counts, lies what it has heard of. The server counts from when the session begins, a moment after
        # its client has been told that it may. It may hear what one that was lost before did not, and what is just failing.
        self._heard_least = max(ledger.known_to_flushes() - 2, 0)
        self._heard_most = None
        self._failed = self._durable = self._known = 0

    def begin(self):
        self._failed, self._durable = self._controls.failed(self._region), self._controls.failed_durable(self._region)
        self._known = self._ledger.known_to_flushes()

    def end(self, error, is_flush, is_durable):
        """What of the error, a number or None, was provoked: "its own", "a failed sync", or None. Raises if one was not told."""
        failed = self._controls.failed(self._region) - self._failed
        lost = self._controls.failed_durable(self._region) - self._durable
        self._ledger.tell(failed, lost)
        at_most = self._ledger.failed_syncs()
        if self._heard_most is None:
            self._heard_most = at_most
        if failed and error != errno.EIO:
            raise RuntimeError(f"{failed} operations failed on the disk, and the client was told {error}")
        if is_flush and error is None and self._known > self._heard_most:
            raise RuntimeError(f"{self._known - self._heard_most} syncs failed, and a flush was told nothing")
        is_news = (is_flush or is_durable) and error == errno.EIO and (lost or not failed)
        if not is_news:
            if is_flush and error is None:
                self._heard_least = max(self._heard_least, self._known)
            return "its own" if failed else None
        may_be_told = at_most > self._heard_least
        self._heard_most = at_most
        self._heard_least = max(self._heard_least + 1, self._known if is_flush else 0)
        if failed:
            return "its own"
        return "a failed sync" if may_be_told else None
