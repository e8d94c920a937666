"""Debian's kernel for the guest: fetched and unpacked, never installed, so that nothing touches the host's boot.

A folder holds, once prepared: unpacked/ (the package), vmlinuz, initrd, and `accelerator` (kvm or tcg).
"""
import contextlib
import fcntl
import gzip
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

# The cloud flavour is smaller, but has no 9p.
METAPACKAGE = "linux-image-amd64"
BOOT_MODULES = ["virtio_pci", "9p", "9pnet_virtio", "overlay"]
PROBE_SECONDS = 20

HERE = Path(__file__).resolve().parent


class Unavailable(Exception):
    """The machine lacks something that this test needs."""


class GuestKernel:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.image = self.folder / "vmlinuz"
        self.initrd = self.folder / "initrd"
        self.modules = self.folder / "unpacked" / "lib" / "modules"

    @property
    def accelerator(self):
        return (self.folder / "accelerator").read_text().strip()

    def prepare(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock"):
            if not self.image.exists():
                fetch(self.folder)
            build_initrd(self.folder, self.modules, self.initrd)
            if not (self.folder / "accelerator").exists():
                chosen = "kvm" if self._boots_with("kvm") else "tcg"
                (self.folder / "accelerator").write_text(chosen + "\n")

    def _boots_with(self, accelerator):
        """Whether a kernel comes up: a /dev/kvm that can be opened is not yet one that works."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return False
        console = self.folder / "probe.console"
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["qemu-system-x86_64", "-accel", accelerator, "-m", "512", "-nographic", "-no-reboot",
                            "-nodefaults", "-serial", f"file:{console}", "-kernel", self.image, "-initrd", self.initrd,
                            "-append", "console=ttyS0 aionbd.probe panic=-1"],
                           stdin=subprocess.DEVNULL, timeout=PROBE_SECONDS, check=False)
        return console.exists() and "guest: the kernel is up" in console.read_text(errors="replace")


@contextlib.contextmanager
def locked(path):
    with open(path, "w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def output_of(*command, **how):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **how).stdout


def download(folder):
    named = re.search(r"Depends: (linux-image-\S+)", output_of("apt-cache", "depends", METAPACKAGE))
    if not named:
        return False
    # Root's own right to write here is what apt would give away before it downloads.
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "--quiet", "download", named.group(1)]
    return subprocess.run(command, cwd=folder, check=False).returncode == 0


def fetch(folder):
    """The package that the metapackage names today, unpacked."""
    if platform.machine() != "x86_64":
        raise Unavailable("the guest is an x86-64 machine")
    if not shutil.which("apt-get"):
        raise Unavailable("no apt-get, so no way to Debian's kernel")
    if not download(folder):
        # Package lists that are old name a kernel that is gone.
        subprocess.run(["apt-get", "--quiet", "update"], check=False)
        if not download(folder):
            raise RuntimeError(f"apt-get does not bring {METAPACKAGE}")
    archive = next(folder.glob("linux-image-*.deb"))
    unpacked = folder / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)
    archive.unlink()
    if (unpacked / "usr" / "lib" / "modules").exists():  # Where newer packages have them.
        (unpacked / "lib").symlink_to("usr/lib")
    version = next((unpacked / "lib" / "modules").iterdir()).name
    subprocess.run(["depmod", "-b", unpacked, version], check=True)
    next((unpacked / "boot").glob("vmlinuz-*")).rename(folder / "vmlinuz")


def build_initrd(folder, modules, target):
    """busybox, guest/init, and the modules it takes to reach the host's root, numbered by load order."""
    tree = folder / "initrd.tree"
    shutil.rmtree(tree, ignore_errors=True)
    for each in ("bin", "modules", "proc", "sys", "dev", "host", "memory", "merged"):
        (tree / each).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
    shutil.copy(HERE / "guest" / "init", tree / "init")
    (tree / "init").chmod(0o755)
    order = []
    for module in BOOT_MODULES:
        listing = output_of("modprobe", "-d", folder / "unpacked", "-S", next(modules.iterdir()).name,
                            "--show-depends", module)
        for path in map(Path, re.findall(r"^insmod (\S+)", listing, re.MULTILINE)):
            plain = path.name[:path.name.index(".ko") + 3]
            if plain in order:
                continue
            unpack = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-dcq"], ".gz": ["gzip", "-dc"]}.get(path.suffix, ["cat"])
            with open(tree / "modules" / plain, "wb") as out:
                subprocess.run([*unpack, path], stdout=out, check=True)
            order.append(plain)
    (tree / "modules" / "order").write_text("\n".join(order) + "\n")
    names = output_of("find", ".", "-print", cwd=tree)
    archive = subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], cwd=tree, input=names.encode(),
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    target.write_bytes(gzip.compress(archive, 1))
