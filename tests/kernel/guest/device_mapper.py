"""Devices of the device mapper: by dmsetup, and a mark in the log of dm-log-writes by the system call that it makes."""
import fcntl
import os
import struct
import subprocess

CONTROL = "/dev/mapper/control"
# <linux/dm-ioctl.h>: struct dm_ioctl, with a name of 128 bytes and a UUID of 129; and DM_TARGET_MSG.
HEADER = struct.Struct("=3I2IIiIIIQ128s129s7x")
TARGET_MESSAGE = 0xC138FD0E


def dmsetup(*arguments):
    """Nobody runs udev here, so dmsetup makes the nodes itself."""
    subprocess.run(["dmsetup", *arguments], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "DM_DISABLE_UDEV": "1"})


def replace_table(name, table):
    """At once: what is under way is not waited for, and the file system above is not told."""
    dmsetup("load", name, "--table", table)
    dmsetup("suspend", "--noflush", "--nolockfs", name)
    dmsetup("resume", name)


class Log:
    """Marks in a device's dm-log-writes, without a process for each."""

    def __init__(self, name):
        self._name = name.encode()
        self._control = os.open(CONTROL, os.O_RDWR)

    def mark(self, text):
        message = struct.pack("=Q", 0) + f"mark {text}".encode() + b"\0"
        length = HEADER.size + len(message)
        header = HEADER.pack(4, 0, 0, length, HEADER.size, 0, 0, 0, 0, 0, 0, self._name, b"")
        fcntl.ioctl(self._control, TARGET_MESSAGE, bytearray(header + message))
