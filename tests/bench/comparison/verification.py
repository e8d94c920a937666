"""How a smoke test knows that what was read is what lies there. Each sector of what is served begins with fio's own
header, which says where it lies, and has the checksum of the rest: neither garbage nor another sector passes for it.
Writes keep it so, whatever their size; and who reads, fio or client.py, compares."""
import subprocess

SECTOR = 512

_ALWAYS = ("--verify_fatal=1", "--verify_state_save=0")
_STAMPS = ("--verify=crc32c", f"--verify_interval={SECTOR}", *_ALWAYS)
_ZEROES = ("--verify=pattern", "--verify_pattern=0x00", *_ALWAYS)

# What is written and read back, at most.
_BYTES_SMALL, _BYTES_LARGE, _BYTES_PACED = 16 << 20, 64 << 20, 4 << 20


def stamp(path, size):
    subprocess.run(["fio", "--name=stamp", f"--filename={path}", f"--size={size}", "--allow_file_create=0",
                    "--rw=write", "--bs=1m", "--ioengine=psync", "--end_fsync=1", *_STAMPS, "--do_verify=0"],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)


def bytes_of_writer(workload, size, seconds):
    """What each connection's writer writes, once, and then reads back; of mixed loads it is what is read or written."""
    most = _BYTES_PACED if workload.rate else _BYTES_SMALL if workload.block <= 4096 else _BYTES_LARGE
    # A MiB for each connection at least, and a request, however short the measurement.
    least = workload.connections * max(1 << 20, workload.block)
    each = min(max(least, int(most * min(1, seconds))), size) // workload.connections
    return each // workload.block * workload.block


def of_writer(begin, each):
    """fio's options for a job that writes."""
    return (f"--offset={begin}", f"--size={each}", f"--offset_increment={each}", "--do_verify=1", *_STAMPS)


def of_reader(backing):
    """fio's options for a job that only reads."""
    return _ZEROES if backing.reads_as_zeroes else _STAMPS
