"""A disk as an array of bytes, and random requests that keep a served one equal to it."""
import random

from served import MIB


class Model:
    """What a region of an export must hold: [begin, end), of which only this model's user writes."""

    def __init__(self, content, begin=0, end=None, seed=1):
        self.content = bytearray(content)
        self.begin = begin
        self.end = len(content) if end is None else end
        self.random = random.Random(seed)

    def any_range(self, length_max=256 << 10):
        """Short and long, aligned and not, and often at the region's edges."""
        size = self.end - self.begin
        length = min(size, self.random.choice([1, self.random.randint(1, 600), 512, 4096, self.random.randint(1, 20000),
                                               8192, 65536, self.random.randint(1, length_max)]))
        offset = self.random.choice([0, size - length, self.random.randint(0, size - length),
                                     self.random.randint(0, size - length) // 4096 * 4096])
        return self.begin + offset, length

    def step(self, handle):
        """One request and, for what it wrote, the same in memory; what it read is compared."""
        import nbd
        offset, length = self.any_range()
        flags = self.random.choice([0, 0, 0, nbd.CMD_FLAG_FUA])
        what = self.random.choice(["read", "read", "write", "write", "write", "zero", "trim"])
        if what == "read":
            self.compare(handle, offset, length)
        elif what == "write":
            data = self.random.randbytes(length)
            handle.pwrite(data, offset, flags)
            self.content[offset:offset + length] = data
        elif what == "zero":
            handle.zero(length, offset, flags | self.random.choice([0, nbd.CMD_FLAG_NO_HOLE]))
            self.content[offset:offset + length] = bytes(length)
        else:
            handle.trim(length, offset, flags)
            self.accept_trimmed(handle, offset, length)

    def compare(self, handle, offset, length):
        found = handle.pread(length, offset)
        wanted = self.content[offset:offset + length]
        if found != wanted:
            at = next(i for i in range(length) if found[i] != wanted[i])
            raise AssertionError(f"read of {length} bytes at {offset}: byte {offset + at} is {found[at]:#x}, "
                                 f"not {wanted[at]:#x}")

    def accept_trimmed(self, handle, offset, length):
        """Trimmed bytes are as before or zero; nothing else."""
        found = handle.pread(length, offset)
        for i, byte in enumerate(found):
            if byte not in (0, self.content[offset + i]):
                raise AssertionError(f"trim of {length} bytes at {offset}: byte {offset + i} became {byte:#x}")
        self.content[offset:offset + length] = found

    def compare_all(self, handle):
        for offset in range(self.begin, self.end, MIB):
            self.compare(handle, offset, min(MIB, self.end - offset))
