"""pressure.py MIB: fills so much memory with pages that differ, then reads all of them back, twice, in another order."""
import hashlib
import mmap
import sys

PAGE = 4096


def page(number):
    return hashlib.shake_128(number.to_bytes(8, "little")).digest(64) * (PAGE // 64)


def main(mib):
    pages = (mib << 20) // PAGE
    memory = mmap.mmap(-1, pages * PAGE)
    for number in range(pages):
        memory[number * PAGE:(number + 1) * PAGE] = page(number)
    for order in (range(pages), reversed(range(pages))):
        for number in order:
            if memory[number * PAGE:(number + 1) * PAGE] != page(number):
                sys.exit(f"page {number} came back with another content")
    print(f"{pages} pages came back")


if __name__ == "__main__":
    main(int(sys.argv[1]))
