"""file_tree.py write FOLDER COUNT: files of many sizes, empty and odd ones among them, in a few levels of folders.

The content follows from the count alone, so that two trees of the same count are the same.
"""
import random
import sys
from pathlib import Path

SIZES = [0, 1, 511, 512, 513, 4095, 4096, 4097, 10_000, 65_536, 65_537, 200_000]


def write(folder, count):
    chance = random.Random(count)
    for number in range(count):
        parent = Path(folder, f"{number % 7}", f"{number % 3}")
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"file {number}").write_bytes(chance.randbytes(SIZES[number % len(SIZES)]))


if __name__ == "__main__":
    write(sys.argv[2], int(sys.argv[3]))
