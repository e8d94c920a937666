"""The servers that are compared: how each is started, and what its acknowledgement of a write promises."""
import contextlib
import ctypes
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import backings

PATIENCE_S = 10
PID_FILE = "daemon.pid"
PR_SET_CHILD_SUBREAPER = 36

# What an acknowledged write has reached when no flush was asked for. A flush or FUA makes it stable with all of them.
DEVICE = "device"       # past the page cache, in the device: what aionbd does
PAGE_CACHE = "memory"   # in the host's page cache: lost with the host
STABLE = "stable"       # on stable storage, each single write


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    program: str
    durability: str
    about: str
    command: object            # (endpoint, backing, folder) -> arguments without the program
    null_store: object = None  # the same for a store that forgets everything, when it has one of its own
    null_program: str = ""     # where that is another program: its path from the folder of the first
    is_daemon: bool = False    # It goes to the background, whatever one does: see adopt_orphans().
    forks_for_connections: bool = False
    fua_is_stable: bool = True
    has_tls: bool = True

    def is_as_durable_for(self, workload):
        """Whether the peer does the same work: data must reach the device, or a flush makes all equal."""
        if workload.fua:
            return self.fua_is_stable
        return (self.durability != PAGE_CACHE or not workload.writes or workload.flush_every > 0
                or workload.load == "copy" or workload.backing in ("tmpfs", "null"))


@dataclasses.dataclass(frozen=True)
class Endpoint:
    path: str = ""  # of a Unix socket
    port: int = 0   # of TCP on the loopback interface
    keys: str = ""  # see make_keys(); empty: without TLS

    def uri(self, export=""):
        scheme = "nbds" if self.keys else "nbd"
        return (f"{scheme}+unix:///{export}?socket={self.path}" if self.path
                else f"{scheme}://127.0.0.1:{self.port}/{export}")

    def client_prefix(self):
        """What fio is started by: it has no option for certificates, and libnbd looks for those of a user who is not
        root in the home directory."""
        if not self.keys:
            return []
        to_be_nobody = ["unshare", "--user", "--map-user=1000"] if os.geteuid() == 0 else []
        return ["env", f"HOME={self.keys}/home", *to_be_nobody]

    def connect(self):
        connected = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)
        connected.settimeout(PATIENCE_S)
        try:
            connected.connect(self.path if self.path else ("127.0.0.1", self.port))
        except OSError:
            connected.close()
            raise
        return connected


def free_endpoint(transport, folder, keys=""):
    if transport == "unix":
        return Endpoint(path=tempfile.mktemp(dir=folder, suffix=".sock"), keys=keys)
    with socket.create_server(("127.0.0.1", 0)) as free:
        return Endpoint(port=free.getsockname()[1], keys=keys)


def make_keys(aionbd, folder):
    """An authority, a server and a client, each of whom asks the other for a certificate; the folder as text."""
    keys = folder / "keys"
    subprocess.run([aionbd, "keygen", "certificates", keys, "--host", "127.0.0.1"], stdout=subprocess.DEVNULL,
                   check=True)
    shutil.copytree(keys / "clients/client", keys / "home/.pki/libnbd")
    return str(keys)


def _aionbd(endpoint, backing, _):
    where = ["--unix", endpoint.path] if endpoint.path else ["--listen", f"127.0.0.1:{endpoint.port}"]
    tls = ["--tls-certificates", f"{endpoint.keys}/server"] if endpoint.keys else []
    return [*where, *tls, "--log-level", "warn", backing.path]


def _qemu_where(endpoint):
    where = ["-k", endpoint.path] if endpoint.path else ["-b", "127.0.0.1", "-p", str(endpoint.port)]
    tls = ["--object", f"tls-creds-x509,id=tls,endpoint=server,verify-peer=on,dir={endpoint.keys}/server",
           "--tls-creds", "tls"] if endpoint.keys else []
    return ["-t", "-e", "64", *where, *tls]


def _aionbd_null(endpoint, backing, _):
    where = ["unix", endpoint.path] if endpoint.path else ["tcp", str(endpoint.port)]
    return [*where, str(backing.size)]


def _qemu(*options):
    def command(endpoint, backing, _):
        return [*_qemu_where(endpoint), "-f", "raw", *options, backing.path]
    return command


def _qemu_null(endpoint, backing, _):
    return [*_qemu_where(endpoint), "--image-opts",
            f"driver=raw,file.driver=null-co,file.read-zeroes=on,file.size={backing.size}"]


def _nbdkit(*plugin):
    def command(endpoint, backing, _):
        where = ["-U", endpoint.path] if endpoint.path else ["-i", "127.0.0.1", "-p", str(endpoint.port)]
        words = [word.format(path=backing.path, size=backing.size) for word in plugin]
        tls = ["--tls=require", f"--tls-certificates={endpoint.keys}/server", "--tls-verify-peer"]
        return ["-f", *where, *(tls if endpoint.keys else []), *words]
    return command


def _nbd_server(sync):
    def command(endpoint, backing, folder):
        where = [f"unixsock = {endpoint.path}"] if endpoint.path else [f"port = {endpoint.port}"]
        config = folder / "nbd-server.conf"
        config.write_text("\n".join(
            ["[generic]", "listenaddr = 127.0.0.1", *where, "[disk]", f"exportname = {backing.path}", "flush = true",
             "fua = true", "multifile = false", *(["sync = true"] if sync else []), ""]), encoding="utf-8")
        return ["-C", str(config), "-p", str(folder / PID_FILE)]
    return command


_ALL = (
    Server("aionbd", "aionbd", DEVICE, "direct I/O, libaio", _aionbd, _aionbd_null,
           null_program="../tests/bench/null/null_store"),
    Server("qemu-native", "qemu-nbd", DEVICE, "cache=none, aio=native",
           _qemu("--cache=none", "--aio=native"), _qemu_null),
    Server("qemu", "qemu-nbd", PAGE_CACHE, "its defaults: page cache, threads", _qemu()),
    Server("nbdkit", "nbdkit", PAGE_CACHE, "file plugin, its defaults", _nbdkit("file", "file={path}"),
           _nbdkit("null", "size={size}")),
    Server("nbdkit-nocache", "nbdkit", PAGE_CACHE, "file plugin, cache=none: evicts behind itself, is not direct",
           _nbdkit("file", "file={path}", "cache=none")),
    # Its FUA is sync_file_range(), which leaves the data in the disk's volatile cache and says nothing of metadata.
    Server("nbd-server", "nbd-server", PAGE_CACHE, "flush and fua enabled", _nbd_server(sync=False), is_daemon=True,
           forks_for_connections=True, fua_is_stable=False, has_tls=False),
    Server("nbd-server-sync", "nbd-server", STABLE, "sync=true: every write is flushed", _nbd_server(sync=True),
           is_daemon=True, forks_for_connections=True, has_tls=False),
)
SERVERS = {server.name: server for server in _ALL}
RAW = "raw"  # No server: fio's own libaio on the file, the floor.


def with_threads(count):
    """The name of aionbd with so many threads, as one more server."""
    plain = SERVERS["aionbd"]
    name = f"aionbd, {count} threads"
    SERVERS[name] = dataclasses.replace(
        plain, name=name, command=lambda *where: ["--threads", str(count), *plain.command(*where)], null_store=None)
    return name


def remember(names):
    """Makes known again what with_threads() has called so."""
    for name in names:
        found = re.fullmatch(r"aionbd, (\d+) threads", name)
        if found:
            with_threads(int(found.group(1)))


def is_ours(name):
    """aionbd, with however many threads."""
    return name in SERVERS and SERVERS[name].program == "aionbd"


def is_apart(name, workload):
    """Whether it answers the writes of this workload from the page cache, where nothing asks for more."""
    return name in SERVERS and not SERVERS[name].is_as_durable_for(workload)


def find_program(server, aionbd):
    return aionbd if server.program == "aionbd" else shutil.which(server.program)


def adopt_orphans():
    """A server that goes to the background becomes our child again, so that wait4 tells what it used."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _program_beside(program, path):
    """Another program of the same build. Where it is older than the first, it was left behind by an earlier one, and
    what it does tells nothing of this one."""
    other = (Path(program).parent / path).resolve()
    if not os.access(other, os.X_OK):
        raise backings.ServerLacks(f"no {other.name} beside {Path(program).name}: build it")
    if other.stat().st_mtime_ns < Path(program).stat().st_mtime_ns:
        raise backings.ServerLacks(f"{other.name} is older than {Path(program).name}: build it again")
    return str(other)


def null_command(server, program, endpoint, backing, folder):
    """A server without a null store of its own gets a device that is one, where there is any."""
    if server.null_program:
        program = _program_beside(program, server.null_program)
        if not server.null_store:
            raise backings.NotAvailable(f"{Path(program).name} has one loop")
    if server.null_store:
        return [program, *server.null_store(endpoint, backing, folder)]
    if not backing.path:
        raise backings.NotAvailable("no null store of its own, and neither null_blk nor, as root, zram")
    return [program, *server.command(endpoint, backing, folder)]


class Running:
    """A server process for one measurement. Leaving its `with` block ends it and leaves its rusage behind."""

    def __init__(self, server, program, backing, endpoint, folder):
        self.server, self.endpoint = server, endpoint
        self.rusage = None
        self._folder = folder
        self.command = [program, *server.command(endpoint, backing, folder)]
        if backing.is_null:
            self.command = null_command(server, program, endpoint, backing, folder)
        self._log = tempfile.TemporaryFile(dir=folder)
        self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        # A daemon may serve before who started it has ended: it is known when its file says so, and not before.
        self.pid = None if server.is_daemon else self._process.pid
        try:
            self._wait_until_it_greets()
        except BaseException:
            self.end()
            raise

    @property
    def uri(self):
        return self.endpoint.uri(self.export)

    @property
    def export(self):
        return "disk" if self.server.program == "nbd-server" else ""

    def log(self):
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _wait_until_it_greets(self):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not self._has_failed():
            with contextlib.suppress(OSError), self.endpoint.connect() as probe:
                if self.pid and probe.recv(8) == b"NBDMAGIC":
                    return
            time.sleep(0.01)
        said = self.log().strip().splitlines() or ["it says nothing"]
        raise RuntimeError(f"{self.server.name} does not serve: {said[0]}")

    def _has_failed(self):
        status = self._process.poll()
        if status is None:
            return False
        if status == 0 and self.server.is_daemon:
            with contextlib.suppress(OSError, ValueError):
                self.pid = int((self._folder / PID_FILE).read_text())
                return False
            self.pid = None  # It has not written it yet.
            return False
        self.pid = None
        return True

    def end(self):
        """wait4 tells of all its threads and reaped children, those that have ended too."""
        if self.rusage is None and self.pid:
            os.kill(self.pid, signal.SIGTERM)
            self._reap()
        self.pid = None
        for leftover in (self.endpoint.path, self._folder / PID_FILE):
            if leftover:
                Path(leftover).unlink(missing_ok=True)

    def _reap(self):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.rusage = usage
                if pid == self._process.pid:
                    self._process.returncode = os.waitstatus_to_exitcode(status)
                return
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline += PATIENCE_S
            time.sleep(0.005)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        self._log.close()
