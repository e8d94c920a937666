"""What is measured: every workload as data. A workload says what the client does and what lies behind the server."""
import dataclasses

import mounts

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PACED_RATE = 2000  # of writes beside a reader: what every server can do, so that all of them do the same


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    load: str                 # fio, client (client.py) or copy (nbdcopy)
    rw: str = "randread"      # in fio's words; of a copy: in or out
    block: int = 4 * KIB
    depth: int = 1            # of each connection
    connections: int = 1
    flush_every: int = 0      # writes
    fua: bool = False
    replies: str = "any"      # simple or structured: what the client insists on
    backing: str = "file"     # see backings.py
    transport: str = "unix"   # or tcp
    tls: bool = False         # with certificates on both sides
    into_holes: bool = False  # where the backing has no blocks, and nowhere else
    rate: int = 0             # I/Os per second at most; 0: as many as there can be
    beside: object = None     # another Workload, whose load goes on meanwhile on a connection of its own
    quick: bool = False       # part of --quick, which with five servers takes two minutes
    note: str = ""

    @property
    def writes(self):
        return "write" in self.rw or self.rw in ("randrw", "in")

    @property
    def reads(self):
        return not self.writes or self.rw == "randrw"

    @property
    def alone(self):
        """The name of the workload that is the same but has none beside it."""
        return self.name.partition(" beside ")[0]


def _random_4k():
    for word, rw in (("read", "randread"), ("write", "randwrite"), ("mixed", "randrw")):
        for depth, connections in ((1, 1), (32, 1), (32, 4)):
            name = f"4k {word} depth {depth}" + (f" x {connections}" if connections > 1 else "")
            yield Workload(name, "fio", rw, depth=depth, connections=connections,
                           quick=word == "read" or (depth, connections) == (32, 1))


def _sequential():
    for size, block, depth in (("256k", 256 * KIB, 16), ("1m", MIB, 8)):
        for rw in ("read", "write"):
            yield Workload(f"{size} {rw}", "fio", rw, block, depth, quick=size == "256k")


def _durable():
    for connections in (1, 8):
        yield Workload(f"4k write flush 32 x {connections}", "fio", "randwrite", depth=32, connections=connections,
                       flush_every=32, quick=connections == 8)
    yield Workload("4k write fua", "client", "randwrite", depth=16, fua=True, note="depth 16, FUA on every write")
    yield Workload("512 write on 4096", "client", "randwrite", block=512, depth=16, backing="loop4096",
                   note="depth 16 on a loop device with sectors of 4096 bytes")


def _ceilings():
    yield Workload("null 4k read", "fio", "randread", depth=32, backing="null", quick=True)
    yield Workload("null 4k read x 4", "fio", "randread", depth=32, connections=4, backing="null")
    yield Workload("tmpfs 4k read", "fio", "randread", depth=32, backing="tmpfs", quick=True)
    yield Workload("tmpfs 4k write", "fio", "randwrite", depth=32, backing="tmpfs")
    yield Workload("tmpfs 256k read", "fio", "read", 256 * KIB, 16, backing="tmpfs")


def _tcp():
    yield Workload("tcp 4k read depth 1", "fio", "randread", depth=1, transport="tcp")
    yield Workload("tcp 4k read depth 32", "fio", "randread", depth=32, transport="tcp", quick=True)
    yield Workload("tcp 4k write depth 32", "fio", "randwrite", depth=32, transport="tcp")
    yield Workload("tcp 256k read", "fio", "read", 256 * KIB, 16, transport="tcp")
    yield Workload("tcp 256k write", "fio", "write", 256 * KIB, 16, transport="tcp")


def _tls():
    for rw in ("read", "write"):
        yield Workload(f"tls 256k {rw}", "fio", rw, 256 * KIB, 16, transport="tcp", tls=True, quick=True)
        yield Workload(f"tls 4k {rw} depth 32", "fio", f"rand{rw}", depth=32, transport="tcp", tls=True, quick=True)
    # Without a disk, and its page cache, in the way: what TLS itself costs.
    for rw in ("read", "write"):
        yield Workload(f"tls tmpfs 256k {rw}", "fio", rw, 256 * KIB, 16, backing="tmpfs", transport="tcp", tls=True)
        yield Workload(f"tls tmpfs 4k {rw}", "fio", f"rand{rw}", depth=32, backing="tmpfs", transport="tcp", tls=True)


def _file_systems():
    """The same load on each kind in turn. Writes into holes make the file system allocate, and a flush behind them
    makes it commit its journal: whoever waits for that on the thread that reads for others keeps them waiting."""
    for rw in ("read", "write"):
        for kind in mounts.KINDS:
            yield Workload(f"{kind} 4k {rw} depth 32", "fio", f"rand{rw}", depth=32, backing=f"{kind}-dense")
        for kind in mounts.KINDS:
            yield Workload(f"{kind} 256k {rw}", "fio", rw, 256 * KIB, 16, backing=f"{kind}-dense")
    for kind in mounts.KINDS:
        yield Workload(f"{kind} 4k write flush 32", "fio", "randwrite", depth=32, flush_every=32,
                       backing=f"{kind}-dense")
    for kind in mounts.KINDS:
        yield Workload(f"{kind} 4k write into holes", "fio", "randwrite", depth=32, backing=f"{kind}-holes",
                       into_holes=True, quick=True, note="depth 32, blocks that were never written")
    for kind in mounts.KINDS:
        yield Workload(f"{kind} 4k write into holes flush 32", "fio", "randwrite", depth=32, flush_every=32,
                       backing=f"{kind}-holes", into_holes=True)
    writer = Workload("writer", "fio", "randwrite", depth=32, flush_every=32, into_holes=True)
    for kind in mounts.KINDS:
        reader = Workload(f"{kind} 4k read depth 1", "fio", "randread", backing=f"{kind}-holes", quick=True)
        yield reader
        yield dataclasses.replace(
            reader, name=f"{reader.name} beside {PACED_RATE} writes",
            beside=dataclasses.replace(writer, rate=PACED_RATE),
            note=f"{PACED_RATE} writes a second into holes, a flush every 32, on another connection")
        yield dataclasses.replace(reader, name=f"{reader.name} beside writes", beside=writer,
                                  note="the same, as many as the server takes")


def _replies():
    for replies in ("simple", "structured"):
        yield Workload(f"{replies} 4k read", "client", "randread", depth=32, backing="tmpfs", replies=replies)
        yield Workload(f"{replies} 256k read", "client", "randread", 256 * KIB, 16, backing="tmpfs", replies=replies)
    # Where there may be holes, structured replies make the server look for them.
    for replies in ("simple", "structured"):
        yield Workload(f"{replies} 256k read beside holes", "client", "read", 256 * KIB, 16, backing="beside-holes",
                       replies=replies, note="one after another, of a file that is dense but for its last MiB")


def _copies():
    for density in ("dense", "sparse"):
        for rw in ("in", "out"):
            # One data block in sixteen is what the sparse image has.
            yield Workload(f"copy {rw} {density}", "copy", rw, 256 * KIB, backing=f"{density}-{rw}",
                           quick=rw == "in" and density == "dense", note="nbdcopy; MB/s of the whole image")


ALL = (*_random_4k(), *_sequential(), *_durable(), *_ceilings(), *_tcp(), *_replies(), *_copies())
TLS = tuple(_tls())
FILE_SYSTEMS = tuple(_file_systems())
EVERY = (*ALL, *TLS, *FILE_SYSTEMS)
