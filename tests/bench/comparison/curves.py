"""What is let grow, one thing at a time, as data: each curve is a list of workloads with the place of each."""
import dataclasses

from workloads import GIB, KIB, MIB, Workload

SECTOR = 512
LARGEST_FILE_EXT4 = (16 << 40) - 4 * KIB


@dataclasses.dataclass(frozen=True)
class Point:
    place: int            # what grows: a number of the curve's unit
    workload: Workload
    threads: int = 1      # of aionbd
    image: int = 0        # bytes of a sparse image of its own; 0: the file


@dataclasses.dataclass(frozen=True)
class Curve:
    name: str
    unit: str
    metric: str           # of the two that the chart shows above: iops or mb_per_s
    points: tuple
    peers: tuple = ("qemu-native",)
    rate_must_hold: bool = True   # a larger place asks for more at once, so the rate has no reason to fall


def _doubling(first, last):
    while first <= last:
        yield first
        first *= 2


def _load(name, rw="randread", block=4 * KIB, depth=1, connections=1):
    return Workload(name, "fio", rw, block, depth, connections)


def _connections():
    return tuple(Point(count, _load(f"{count} connections", depth=4, connections=count)) for count in _doubling(1, 64))


def _depths():
    return tuple(Point(depth, _load(f"depth {depth}", depth=depth)) for depth in _doubling(1, 256))


def _sizes(rw):
    for block in (SECTOR, 4 * KIB, 32 * KIB, 256 * KIB, 2 * MIB, 8 * MIB, 32 * MIB):
        # About as many bytes in flight, as far as that goes: requests beyond count, not bytes.
        depth = max(2, min(32, 16 * MIB // block))
        yield Point(block, _load(f"{rw} of {block} bytes", rw, block, depth))


def _images():
    for size in (GIB, 16 * GIB, 256 * GIB, 4096 * GIB, LARGEST_FILE_EXT4):
        yield Point(size, _load(f"an image of {size} bytes", depth=32), image=size)


def _threads(rw):
    for count in (1, 2, 3, 4):
        yield Point(count, _load(f"{count} threads, {rw}", rw, depth=32, connections=4), threads=count)


ALL = (
    Curve("connections", "connections, 4 KiB reads, each of depth 4", "iops", _connections()),
    Curve("depth", "4 KiB reads in flight on one connection", "iops", _depths()),
    Curve("read size", "bytes of each sequential read", "mb_per_s", tuple(_sizes("read"))),
    Curve("write size", "bytes of each sequential write", "mb_per_s", tuple(_sizes("write"))),
    Curve("image size", "bytes of a sparse image, 4 KiB reads, depth 32", "iops", tuple(_images())),
    Curve("threads reading", "threads, 4 KiB reads, depth 32 x 4", "iops", tuple(_threads("randread")), (), False),
    Curve("threads writing", "threads, 4 KiB writes, depth 32 x 4", "iops", tuple(_threads("randwrite")), (), False),
)
