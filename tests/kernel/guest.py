"""One boot of the guest: QEMU with the host's root read-only, a share for results, and disks for image files."""
import shlex
import shutil
import subprocess
import time
from pathlib import Path

BOOT_PATIENCE_S = 120     # until the first scenario begins
TIDY_PATIENCE_S = 60      # beyond a scenario's own limit: for the guest to end it and tidy up
SWITCH_OFF_PATIENCE_S = 30
DISK_BYTES = 8 << 30
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Guest:
    """A folder for one boot at a time: share/, console.log, and the disks, which are sparse and made anew."""

    def __init__(self, kernel, folder, memory_mib, disk_options):
        self._kernel = kernel
        self._folder = Path(folder)
        self._memory_mib = memory_mib
        self._disk_options = disk_options
        self.share = self._folder / "share"
        self.console = self._folder / "console.log"
        self.share.mkdir(parents=True, exist_ok=True)

    def boot(self, main, **plan):
        """Starts QEMU; inside, `main` runs as process 1 and finds `plan` as shell variables in the share."""
        (self.share / "main").write_text(f"{main}\n")
        (self.share / "plan").write_text("".join(f"{name}={shell_value(value)}\n" for name, value in plan.items()))
        disks = []
        for name, maker in (("ext4", ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0"]), ("xfs", ["mkfs.xfs", "-q"])):
            disk = self._folder / f"{name}.disk"
            disk.unlink(missing_ok=True)
            with open(disk, "wb") as opened:
                opened.truncate(DISK_BYTES)
            subprocess.run([shutil.which(maker[0], path=PATH), *maker[1:], disk], check=True)
            disks += ["-drive", f"file={comma_safe(disk)},format=raw,if=virtio,discard=unmap,{self._disk_options}"]
        accelerator = self._kernel.accelerator
        self._process = subprocess.Popen(
            ["qemu-system-x86_64", "-nodefaults", "-nographic", "-no-reboot", "-smp", "2", "-m", str(self._memory_mib),
             "-accel", "kvm" if accelerator == "kvm" else "tcg,thread=multi",
             "-cpu", "host" if accelerator == "kvm" else "Nehalem",
             "-serial", f"file:{self.console}", "-kernel", self._kernel.image, "-initrd", self._kernel.initrd,
             "-append", "console=ttyS0 quiet loglevel=4 aionbd.guest panic=-1 log_buf_len=4M rcupdate.rcu_cpu_stall_timeout=60",
             "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
             "-virtfs", f"local,path={comma_safe(self.share)},mount_tag=share,security_model=none,multidevs=remap",
             "-device", "virtio-rng-pci", *disks],
            stdin=subprocess.DEVNULL)

    def is_running(self):
        return self._process.poll() is None

    def kill(self):
        self._process.kill()
        self._process.wait()

    def wait_until(self, is_over, patience_s):
        """Whether `is_over` came true in time; a guest that has ended will not make it true."""
        deadline = time.monotonic() + patience_s
        while not is_over():
            if time.monotonic() > deadline or not self.is_running():
                return is_over()
            time.sleep(0.2)
        return True

    def switch_off(self):
        """Waits for it to switch itself off, and removes the disks."""
        self.wait_until(lambda: not self.is_running(), SWITCH_OFF_PATIENCE_S)
        if self.is_running():
            self.kill()
        for disk in self._folder.glob("*.disk"):
            disk.unlink()


def comma_safe(path):
    return str(path).replace(",", ",,")


def shell_value(value):
    if isinstance(value, (list, tuple)):
        return "(" + " ".join(shlex.quote(str(each)) for each in value) + ")"
    return shlex.quote(str(value))
