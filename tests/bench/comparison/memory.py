"""What README says of memory, applied to one load: the most that aionbd may take for it."""

KIB, MIB = 1 << 10, 1 << 20

PROGRAM = 16 * MIB            # code, libraries, what it has at rest; and its child's, which opens files for it
OF_A_CONNECTION = 256 * KIB   # the receive buffer
OF_TLS = 700 * KIB
OF_A_REQUEST = 2 * KIB
REQUESTS = 128                # --queue-depth
IN_FLIGHT = 64 * MIB          # --max-in-flight
BUFFER_MIN, HUGE_PAGE = 4 * KIB, 2 * MIB
REGION, MAP_MAX = MIB, 2 * MIB  # One bit for each region of a disk.


def buffer_for(length):
    """Powers of two up to a huge page, and then whole huge pages."""
    if length > HUGE_PAGE:
        return -(-length // HUGE_PAGE) * HUGE_PAGE
    return max(BUFFER_MIN, 1 << (length - 1).bit_length())


def _in_flight(workload):
    """Of one connection: all that it asks for at once, within its limits; one request is always possible."""
    each = buffer_for(workload.block)
    return max(each, min(IN_FLIGHT, min(workload.depth, REQUESTS) * each))


def of_a_connection():
    """Whatever it asks for."""
    return OF_A_CONNECTION + REQUESTS * OF_A_REQUEST


def most(workload, disk_size, threads=1):
    """Bytes. Buffers come into being with the requests that need them, so there are no more than those in flight; those
    that are pooled, by huge pages, of which each loop has begun one at most."""
    each = of_a_connection() + (OF_TLS if workload.tls else 0) + _in_flight(workload)
    return PROGRAM + workload.connections * each + threads * HUGE_PAGE + min(MAP_MAX, disk_size // REGION // 8)
