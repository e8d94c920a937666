"""A file system of a chosen kind, in an image beside the file that is measured, on a loop device that uses direct I/O.
The device costs something; it costs every kind the same, so that they can be set side by side."""
import os
import shutil
import subprocess

KINDS = ("ext4", "xfs")
IMAGE_MIN = 320 << 20  # mkfs.xfs wants more than 300 MiB.

# Nothing is discarded, for that would make holes in the image, and nothing is left to be made later.
_MAKE = {"ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E",
                  "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
         "xfs": ["mkfs.xfs", "-q", "-f", "-K"]}


class CannotMount(Exception):
    pass


def _run(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or "it says nothing").splitlines()[-1]
        raise CannotMount(f"{words[0]}: {said}")
    return done.stdout.strip()


def _attach(image):
    """The loop device. Its pages would be a cache that no disk has, so it is of no use without direct I/O."""
    device = _run("losetup", "--find", "--show", "--direct-io=on", str(image))
    if _run("losetup", "--noheadings", "--output", "DIO", device) != "1":
        _run("losetup", "--detach", device)
        raise CannotMount("the loop device takes no direct I/O here")
    return device


def check(kind):
    """Raises CannotMount, before anybody has gone to the trouble of an image."""
    if os.geteuid() != 0:
        raise CannotMount(f"{kind} on a loop device needs root")
    for program in (_MAKE[kind][0], "losetup", "mount"):
        if shutil.which(program) is None:
            raise CannotMount(f"no {program}")


def mount(kind, image, undo):
    """Makes a file system in the image, which has every block written, and gives the folder where it is mounted."""
    device = _attach(image)
    try:
        _run(*_MAKE[kind], device)
        folder = image.with_suffix(".mounted")
        folder.mkdir(exist_ok=True)
        undo.callback(folder.rmdir)
        _run("mount", "-t", kind, device, str(folder))
        undo.callback(_run, "umount", str(folder))
    finally:
        # Once the file system is gone from it, that is: a device in use is let go of by its last user.
        _run("losetup", "--detach", device)
    return folder


def kind_of(folder):
    """Of several that were mounted there one over the other, the last."""
    return _run("findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)).split()[-1]
