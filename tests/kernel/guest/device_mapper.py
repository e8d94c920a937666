"""Devices of the device mapper, by the system calls that dmsetup makes: a process for each would take most of the time."""
import contextlib
import fcntl
import os
import struct

# <linux/dm-ioctl.h>: struct dm_ioctl, with a name of 128 bytes and a UUID of 129; struct dm_target_spec.
HEADER = struct.Struct("=3I2IIiIIIQ128s129s7x")
TARGET = struct.Struct("=QQiI16s")
CREATE, REMOVE, SUSPEND_OR_RESUME, LOAD, MESSAGE = (0xC138FD00 | number for number in (3, 4, 6, 9, 14))
SUSPEND, SKIP_FILE_SYSTEM, DO_NOT_WAIT = 1 << 1, 1 << 10, 1 << 11
ANSWER_BYTES = 4096

_control = None


def ask(command, name, payload=b"", flags=0, targets=0):
    """The number that the device has, as the kernel answers it."""
    global _control
    if _control is None:
        _control = os.open("/dev/mapper/control", os.O_RDWR)
    header = HEADER.pack(4, 0, 0, ANSWER_BYTES, HEADER.size, targets, 0, flags, 0, 0, 0, name.encode(), b"")
    message = bytearray((header + payload).ljust(ANSWER_BYTES, b"\0"))
    fcntl.ioctl(_control, command, message)
    return HEADER.unpack_from(message)[10]


def load(name, table):
    """A table of one line: where it begins, its sectors, a target and its arguments."""
    begin, sectors, target, arguments = table.split(maxsplit=3)
    length = -(-(TARGET.size + len(arguments) + 1) // 8) * 8
    line = TARGET.pack(int(begin), int(sectors), 0, length, target.encode()) + arguments.encode()
    ask(LOAD, name, line.ljust(length, b"\0"), targets=1)


@contextlib.contextmanager
def device(name, table):
    """The path of a device that is there for as long."""
    number = ask(CREATE, name)
    try:
        load(name, table)
        ask(SUSPEND_OR_RESUME, name)
        yield f"/dev/dm-{number & 0xFF | number >> 12 & 0xFFF00}"
    finally:
        ask(REMOVE, name)


def replace_table(name, table):
    """At once: what is under way is not waited for, and the file system above is not told."""
    load(name, table)
    ask(SUSPEND_OR_RESUME, name, flags=SUSPEND | SKIP_FILE_SYSTEM | DO_NOT_WAIT)
    ask(SUSPEND_OR_RESUME, name)


def mark(name, text):
    """In the log of a device of dm-log-writes."""
    ask(MESSAGE, name, struct.pack("=Q", 0) + f"mark {text}".encode() + b"\0")
