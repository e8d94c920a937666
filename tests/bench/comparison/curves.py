"""What is let grow, one thing at a time, as data: each curve is a list of workloads with the place of each."""
import dataclasses

from workloads import GIB, KIB, MIB, Workload

SECTOR = 512
LARGEST_FILE_EXT4 = (16 << 40) - 4 * KIB
_OVER_TLS = {"tls": True, "transport": "tcp"}


@dataclasses.dataclass(frozen=True)
class Point:
    place: int            # what grows: a number of the curve's unit
    workload: Workload
    threads: int = 1      # of aionbd
    image: int = 0        # bytes of a sparse image of its own; 0: the file


@dataclasses.dataclass(frozen=True)
class Curve:
    name: str             # what precedes a colon is one chart's
    unit: str
    metric: str           # of the two that the chart shows above: iops or mb_per_s
    points: tuple
    peers: tuple = ("qemu-native",)
    rate_must_hold: bool = True   # a larger place asks for more at once, so the rate has no reason to fall


def _doubling(first, last):
    while first <= last:
        yield first
        first *= 2


def _load(name, rw="randread", block=4 * KIB, depth=1, connections=1, **more):
    return Workload(name, "fio", rw, block, depth, connections, **more)


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


# Where more threads could pay: several connections, and much for a loop to do beside what the disk does. From memory
# there is no disk to wait for, and with TLS the loop encrypts.
_THREADS = {
    "4k reads": {"depth": 32, "connections": 4},
    "4k writes": {"rw": "randwrite", "depth": 32, "connections": 4},
    "4k reads, 32 clients": {"depth": 4, "connections": 32},
    "256k reads": {"block": 256 * KIB, "depth": 8, "connections": 4},
    "256k reads, tmpfs": {"block": 256 * KIB, "depth": 8, "connections": 4, "backing": "tmpfs"},
    "4k reads, TLS": {"depth": 32, "connections": 4, **_OVER_TLS},
    "256k reads, TLS": {"block": 256 * KIB, "depth": 8, "connections": 4, "backing": "tmpfs", **_OVER_TLS},
    "256k writes, TLS": {"rw": "randwrite", "block": 256 * KIB, "depth": 8, "connections": 4, "backing": "tmpfs",
                         **_OVER_TLS},
}


def _threads():
    for name, load in _THREADS.items():
        points = tuple(Point(count, _load(f"{name}, {count} threads", **load), threads=count) for count in (1, 2, 3, 4))
        about = f"threads, {load['connections']} connections of depth {load['depth']}, {load.get('backing', 'file')}"
        yield Curve(f"threads: {name}", about, "iops", points, peers=(), rate_must_hold=False)


ALL = (
    Curve("connections", "connections, 4 KiB reads, each of depth 4", "iops", _connections()),
    Curve("depth", "4 KiB reads in flight on one connection", "iops", _depths()),
    Curve("read size", "bytes of each sequential read", "mb_per_s", tuple(_sizes("read"))),
    Curve("write size", "bytes of each sequential write", "mb_per_s", tuple(_sizes("write"))),
    Curve("image size", "bytes of a sparse image, 4 KiB reads, depth 32", "iops", tuple(_images())),
    *_threads(),
)
