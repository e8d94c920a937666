"""Writers that keep a ledger, outside the disk, of what they were promised; and the audit of such a ledger.

    ledger.py files FOLDER LEDGER        writes and fsyncs files until it fails or is terminated
    ledger.py blocks DEVICE LEDGER       the same with direct writes of 4 KiB blocks, by four processes
    ledger.py audit-files FOLDER LEDGER
    ledger.py audit-blocks IMAGE LEDGER

A line of the ledger is written after the promise: "number size" for a file, "number version" for a block.
"""
import hashlib
import mmap
import os
import random
import sys
from pathlib import Path

BLOCK = 4096
WRITERS = 4


def bytes_for(*names):
    return hashlib.shake_128(repr(names).encode())


def write_files(folder, ledger):
    with open(ledger, "a", buffering=1) as book:
        for number in range(len(Path(ledger).read_text().splitlines()), 1_000_000):
            size = 1 + number * 7919 % 60_000
            temporary = Path(folder, "temporary")
            with open(temporary, "wb") as out:
                out.write(bytes_for(number).digest(size))
                out.flush()
                os.fsync(out.fileno())
            temporary.rename(Path(folder, f"file {number}"))
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            book.write(f"{number} {size}\n")


def audit_files(folder, ledger):
    lines = Path(ledger).read_text().splitlines()
    for line in lines:
        number, size = map(int, line.split())
        if Path(folder, f"file {number}").read_bytes() != bytes_for(number).digest(size):
            sys.exit(f"file {number} of {size} bytes is not what was written and fsynced")
    print(f"{len(lines)} files that were fsynced are there")


def write_blocks(device, ledger):
    """Each process has every fourth block; version counts up, so that a lost rewrite shows too."""
    with open(device, "rb") as opened:
        blocks = opened.seek(0, os.SEEK_END) // BLOCK
    for writer in range(WRITERS):
        if os.fork() == 0:
            chance = random.Random(writer)
            memory = mmap.mmap(-1, BLOCK)
            disk = os.open(device, os.O_WRONLY | os.O_DIRECT)
            with open(f"{ledger}.{writer}", "w", buffering=1) as book:
                for version in range(1_000_000):
                    number = chance.randrange(blocks // WRITERS) * WRITERS + writer
                    memory[:] = block_content(number, version)
                    try:
                        os.pwrite(disk, memory, number * BLOCK)
                    except OSError as error:
                        print(f"writer {writer}: {error.strerror} after {version} blocks", flush=True)
                        book.write(f"{number} {version} unanswered\n")
                        os._exit(0)
                    book.write(f"{number} {version}\n")
    for _ in range(WRITERS):
        os.wait()


def block_content(number, version):
    return bytes_for(number, version).digest(64) * (BLOCK // 64)


def audit_blocks(image, ledger):
    promised, allowed, count = {}, {}, 0
    for writer in range(WRITERS):
        for line in Path(f"{ledger}.{writer}").read_text().splitlines():
            number, version, *unanswered = line.split()
            if unanswered:  # It may be there or not.
                allowed[int(number)] = int(version)
            else:
                promised[int(number)] = int(version)
                count += 1
    with open(image, "rb") as opened:
        for number, version in promised.items():
            opened.seek(number * BLOCK)
            found = opened.read(BLOCK)
            if found != block_content(number, version) and found != block_content(number, allowed.get(number)):
                sys.exit(f"block {number} is not the version {version} that was acknowledged")
    print(f"{count} blocks that were acknowledged are there, or a later version")


if __name__ == "__main__":
    {"files": write_files, "blocks": write_blocks, "audit-files": audit_files,
     "audit-blocks": audit_blocks}[sys.argv[1]](*sys.argv[2:])
