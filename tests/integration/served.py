"""What the integration tests share: a server that is started for a test, and the running of one test by name.

    SUBJECT_test.py --list           the facts of the file, each with its needs
    SUBJECT_test.py AIONBD FACT      check one fact with the program at path AIONBD; exit status 77 when the machine
                                     lacks something

A file of tests has one class derived from Facts; each of its public methods is a fact.
"""
import contextlib
import functools
import mmap
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SKIPPED = 77
PATIENCE_S = 30  # for what should take no time at all, on a machine that is busy

# What sanitizers, asserts and the C++ library say when a program has gone wrong.
COMPLAINTS = re.compile(r"Sanitizer|runtime error:|Assertion .* failed|terminate called|core dumped")

program = None  # the path of aionbd


def is_sanitized():
    """Sanitizers cost memory and time, and do not like to be traced."""
    with open(program, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"__asan_init") >= 0 or content.find(b"__tsan_init") >= 0


# --- What a test needs --------------------------------------------------------------------------------------------

def need(what):
    """The test must not run at the same time as others that need this."""
    def mark(method):
        method.needs = [*getattr(method, "needs", []), what]
        return method
    return mark


# It is about several loops: ThreadSanitizer runs it as well.
loops = need("loops")
# It changes the machine for everybody: nothing else may run.
alone = need("alone")


# --- The server ---------------------------------------------------------------------------------------------------

class Server:
    """A running aionbd. Leaving its `with` block sends SIGTERM and demands a clean end."""

    def __init__(self, folder, arguments, prefix=(), environment=None, pass_fds=()):
        self._folder = folder
        self._log = tempfile.NamedTemporaryFile(dir=folder, suffix=".log", delete=False)  # It goes with the folder.
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        notify_path = tempfile.mktemp(dir=folder, suffix=".notify")
        self._notices.bind(notify_path)
        self.arguments = [str(each) for each in arguments]
        self.process = subprocess.Popen(
            [*prefix, program, *self.arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=self._log, env={**os.environ, "NOTIFY_SOCKET": notify_path, **(environment or {})},
            pass_fds=pass_fds)
        self.pid = self.process.pid
        try:
            self.wait_for_notice("READY=1")
        except BaseException:
            self.kill()
            raise

    # Where it listens.

    @property
    def socket_path(self):
        return re.search(r"listening on unix:(.*)", self.log()).group(1)

    @property
    def port(self):
        return int(re.search(r"listening on 127\.0\.0\.1:(\d+)", self.log()).group(1))

    @functools.cached_property
    def address(self):
        """(family, address) for a socket, of whichever it listens on."""
        if "listening on unix:" in self.log():
            return socket.AF_UNIX, self.socket_path
        return socket.AF_INET, ("127.0.0.1", self.port)

    @property
    def uri(self):
        unix = re.search(r"listening on unix:(.*)", self.log())
        return f"nbd+unix:///?socket={unix.group(1)}" if unix else f"nbd://127.0.0.1:{self.port}"

    def connect(self, configure=None):
        """A connected libnbd handle."""
        import nbd
        handle = nbd.NBD()
        if configure:
            configure(handle)
        handle.connect_uri(self.uri)
        return handle

    # What it says.

    def log(self):
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def wait_for_log(self, pattern, count=1, patience_s=PATIENCE_S):
        wait_until(lambda: len(re.findall(pattern, self.log())) >= count, patience_s,
                   lambda: f"'{pattern}' in the log {count} times:\n{self.log()}")

    def wait_for_notice(self, wanted):
        deadline = time.monotonic() + PATIENCE_S
        self._notices.settimeout(0.05)
        while time.monotonic() < deadline:
            try:
                text, control, _, _ = self._notices.recvmsg(4096, socket.CMSG_SPACE(12))
            except TimeoutError:
                if self.process.poll() is not None:
                    break
                continue
            # Who sent it is the server itself, even when it was started by way of another program.
            self.pid = struct.unpack("iii", control[0][2])[0]
            if wanted in text.decode().split("\n"):
                return
        raise AssertionError(f"no {wanted} from: aionbd {' '.join(self.arguments)}\n{self.log()}")

    # What it uses.

    def status(self, field):
        """A line of /proc/PID/status, in bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(re.search(rf"{field}:\s+(\d+) kB", text).group(1)) * KIB

    def descriptors(self):
        """How many it has."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def descriptors_of(self, path):
        """The flags of each descriptor that has this file open."""
        folder = Path(f"/proc/{self.pid}")
        numbers = [entry.name for entry in (folder / "fd").iterdir()
                   if os.path.exists(entry) and os.path.samefile(entry, path)]
        return [int(re.search(r"flags:\s+(\d+)", (folder / "fdinfo" / number).read_text()).group(1), 8)
                for number in numbers]

    def open_paths(self):
        with contextlib.suppress(FileNotFoundError):  # one was closed meanwhile
            return [os.readlink(each) for each in Path(f"/proc/{self.pid}/fd").iterdir()]
        return []

    def aio_queues(self):
        """How many io_setup has made for it: each is a mapping."""
        return Path(f"/proc/{self.pid}/maps").read_text(encoding="ascii").count("/[aio]")

    # How it ends.

    def signal(self, which):
        os.kill(self.pid, which)

    def wait(self):
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            log = self.log()
            self.kill()
            raise AssertionError(f"the server did not end:\n{log}") from None

    def stop(self):
        self.signal(signal.SIGTERM)
        self.expect_end(0)

    def expect_end(self, status):
        ended = self.wait()
        if ended != status or COMPLAINTS.search(self.log()):
            raise AssertionError(f"the server ended with {ended}, not {status}:\n{self.log()}")

    def kill(self):
        if self.process.poll() is None:
            if self.pid != self.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if kind is not None:
                print(f"aionbd {' '.join(self.arguments)}\n{self.log()}", file=sys.stderr)
            elif self.process.poll() is None:
                self.stop()
            elif COMPLAINTS.search(self.log()):
                raise AssertionError(self.log())
        finally:
            self.kill()
            self._notices.close()


def wait_until(condition, patience_s, what):
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s} s for {what() if callable(what) else what}")
        time.sleep(0.01)


# --- A file of facts ----------------------------------------------------------------------------------------------

class Facts(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(dir=os.environ.get("AIONBD_TEST_FOLDER", "."), prefix="it-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        # A socket's path may have 107 bytes, which a build tree's often has not left.
        self.sockets = Path(tempfile.mkdtemp(prefix="aionbd-"))
        self.addCleanup(shutil.rmtree, self.sockets, ignore_errors=True)

    def need(self, *programs):
        for each in programs:
            if shutil.which(each) is None:
                self.skipTest(f"no {each} here")

    def need_root(self):
        if os.geteuid() != 0:
            self.skipTest("not root")

    def image(self, content, name="disk.img"):
        """A file, allocated, with this content; or with this many random bytes."""
        path = self.folder / name
        path.write_bytes(os.urandom(content) if isinstance(content, int) else content)
        return path

    def sparse(self, size, name="sparse.img"):
        path = self.folder / name
        with open(path, "wb") as opened:
            opened.truncate(size)
        return path

    def serve(self, file, *options, tcp=False, **how):
        """A server of `file`, on a Unix socket, or on a free port of TCP."""
        where = ["--listen", "127.0.0.1:0"] if tcp else ["--unix", self.free_socket()]
        return Server(self.sockets, [*where, *options, file], **how)

    def free_socket(self):
        return tempfile.mktemp(dir=self.sockets, suffix=".sock")

    def run_tool(self, *command, status=0, **how):
        """The output of a program that must end with this status."""
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False, timeout=60, **how)
        if done.returncode != status:
            self.fail(f"{' '.join(map(str, command))}\nended with {done.returncode}, not {status}:\n"
                      f"{done.stdout}{done.stderr}")
        return done.stdout if status == 0 else done.stdout + done.stderr

    def assert_same_bytes(self, found, wanted):
        """Like assertEqual, without megabytes of output."""
        self.assertEqual(len(found), len(wanted))
        if found != wanted:
            at = next(i for i in range(len(wanted)) if found[i] != wanted[i])
            self.fail(f"byte {at} differs: {found[at:at + 16].hex()}, not {wanted[at:at + 16].hex()}")


def facts_of(case):
    return [name for name in vars(case) if not name.startswith("_")]


def main(case):
    global program
    if sys.argv[1:] == ["--list"]:
        for name in facts_of(case):
            print(name, *getattr(getattr(case, name), "needs", []))
        return
    if len(sys.argv) != 3 or sys.argv[2] not in facts_of(case):
        sys.exit(f"usage: {sys.argv[0]} --list | AIONBD FACT")
    program = os.path.abspath(sys.argv[1])
    # The system's own tools, losetup and the Python that libnbd's modules were built for among them.
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", "")
    result = unittest.TextTestRunner(verbosity=0).run(case(sys.argv[2]))
    for _, reason in result.skipped:
        print(f"skipped: {reason}")
    sys.exit(SKIPPED if result.skipped else 0 if result.wasSuccessful() else 1)
