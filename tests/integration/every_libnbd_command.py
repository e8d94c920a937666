"""Every command of libnbd with every set of flags, synchronous and not, against a copy of the disk in memory.

For nbdsh, whose handle is h; knows libnbd 1.14 (Debian 12) to 1.22 (Debian 13), and fails when the library has a command
or a flag that is not here. Environment: EXPORT_URI; REPLIES, simple, structured or extended; WRITABLE, yes or no.
"""
import os

import nbd

URI, REPLIES, WRITABLE = os.environ["EXPORT_URI"], os.environ["REPLIES"], os.environ["WRITABLE"] == "yes"
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = 1, 2, 4, 8, 16, 32
NAMED_FLAGS = {"FUA": FUA, "NO_HOLE": NO_HOLE, "DF": DF, "REQ_ONE": REQ_ONE, "FAST_ZERO": FAST_ZERO,
               "PAYLOAD_LEN": PAYLOAD_LEN}
UNKNOWN_FLAG = 1 << 14
AUTO_FLAG = getattr(nbd, "STRICT_AUTO_FLAG", 0)
HOLE, ZERO = 1, 2
CONTEXT = "base:allocation"
BYTES = 5000  # of a request: no multiple of anything

COMMANDS = {"pread", "pread_structured", "pwrite", "flush", "trim", "cache", "zero", "block_status", "block_status_64",
            "block_status_filter"}
OPTIONS = {"opt_abort", "opt_extended_headers", "opt_go", "opt_info", "opt_list", "opt_list_meta_context",
           "opt_list_meta_context_queries", "opt_set_meta_context", "opt_set_meta_context_queries", "opt_starttls",
           "opt_structured_reply"}
CHANGES = {"pwrite", "trim", "zero"}

FUA_IS_OFFERED = FUA if WRITABLE else 0
ALLOWED = {"pread": FUA_IS_OFFERED | (DF if REPLIES != "simple" else 0), "pwrite": FUA_IS_OFFERED, "flush": FUA_IS_OFFERED,
           "trim": FUA_IS_OFFERED, "zero": FUA_IS_OFFERED | NO_HOLE | FAST_ZERO, "block_status": FUA_IS_OFFERED | REQ_ONE}
ALLOWED["pread_structured"] = ALLOWED["pread"]
ALLOWED["block_status_64"] = ALLOWED["block_status_filter"] = ALLOWED["block_status"]


def has(name):
    return hasattr(nbd.NBD, name)


def new_handle():
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    if has("set_request_extended_headers"):
        handle.set_request_extended_headers(REPLIES == "extended")
    handle.set_request_structured_replies(REPLIES != "simple")
    if REPLIES != "simple":
        handle.add_meta_context(CONTEXT)
    handle.connect_uri(URI)
    return handle


def run(handle, cookie):
    """Waits for a command that is under way; raises its error."""
    while not handle.aio_command_completed(cookie):
        handle.poll(-1)


def the_library_is_known():
    flags = {name[len("CMD_FLAG_"):]: getattr(nbd, name) for name in dir(nbd) if name.startswith("CMD_FLAG_")}
    flags.pop("MASK")
    assert flags.items() <= NAMED_FLAGS.items(), f"flags that are not tested: {flags}"
    both = {name for name in dir(nbd.NBD) if has(f"aio_{name}") and not name.startswith("connect")}
    assert both <= COMMANDS | OPTIONS, f"commands that are not tested: {both - COMMANDS - OPTIONS}"


# --- The handshake ----------------------------------------------------------------------------------------------

def every_option():
    handle = new_handle()
    size = None
    for is_async in (False, True):
        def do(name, *arguments, is_async=is_async):
            if not is_async:
                return getattr(handle, name)(*arguments)
            getattr(handle, f"aio_{name}")(*arguments)
            while handle.aio_is_connecting():
                handle.poll(-1)
            return None

        names, contexts = [], []
        do("opt_list", lambda name, description, names=names: names.append(name))
        assert names == [""], names
        do("opt_info")
        size = handle.get_size()
        assert handle.is_read_only() != WRITABLE
        if REPLIES != "simple":
            do("opt_list_meta_context", lambda name, contexts=contexts: contexts.append(name))
            assert contexts == [CONTEXT], contexts
            if has("opt_set_meta_context"):
                for queries, found in (([CONTEXT], [CONTEXT]), (["base:"], []), (["other:x"], []), ([], [])):
                    told = []
                    do("opt_set_meta_context_queries", queries, lambda name, told=told: told.append(name))
                    assert told == found, (queries, told)
                    told = []
                    do("opt_list_meta_context_queries", queries, lambda name, told=told: told.append(name))
                    assert told == ([] if queries == ["other:x"] else [CONTEXT]), (queries, told)
                do("opt_set_meta_context", lambda name: None)
        for name, is_refused in (("opt_structured_reply", REPLIES != "simple"), ("opt_extended_headers", True)):
            # Asking twice changes nothing; libnbd answers that itself, or hears it from the server.
            if has(name) and is_refused and (name == "opt_structured_reply" or REPLIES == "extended"):
                do(name)
        if has("opt_starttls"):
            try:
                do("opt_starttls")
            except nbd.Error as refused:
                assert refused.errno in ("ENOTSUP", "EINVAL"), refused
    assert handle.aio_is_negotiating()
    handle.opt_go()
    assert handle.get_size() == size
    handle.shutdown()

    for leave in ("opt_abort", "aio_opt_abort"):
        handle = new_handle()
        getattr(handle, leave)()
        while not handle.aio_is_closed():
            handle.poll(-1)
    handle = new_handle()
    handle.aio_opt_go()
    while handle.aio_is_connecting():
        handle.poll(-1)
    assert handle.aio_is_ready()
    handle.aio_disconnect()
    while not handle.aio_is_closed():
        handle.poll(-1)


def what_the_export_can(handle):
    is_chunked = REPLIES != "simple"
    assert handle.get_structured_replies_negotiated() == is_chunked
    if has("get_extended_headers_negotiated"):
        assert handle.get_extended_headers_negotiated() == (REPLIES == "extended")
        assert handle.can_block_status_payload() == (REPLIES == "extended")
    assert handle.can_df() == is_chunked and handle.can_meta_context(CONTEXT) == is_chunked
    assert handle.can_flush() and handle.can_multi_conn() and not handle.can_cache()
    for can in (handle.can_fua, handle.can_trim, handle.can_zero, handle.can_fast_zero):
        assert can() == WRITABLE, can
    assert handle.is_rotational() in (False, True)
    assert handle.get_protocol() == "newstyle-fixed"
    assert not handle.get_tls_negotiated()
    minimum, preferred, longest = (handle.get_block_size(which) for which in (0, 1, 2))
    assert (minimum, longest) == (1, 32 << 20) and preferred >= 4096


# --- Commands ---------------------------------------------------------------------------------------------------

class Pieces:
    """What the chunks of a read brought."""

    def __init__(self, offset, length):
        self.offset, self.content, self.missing, self.chunks = offset, bytearray(length), length, 0

    def __call__(self, piece, offset, status, error):
        if status == nbd.READ_ERROR:
            return 0
        assert status in (nbd.READ_DATA, nbd.READ_HOLE), status
        at = offset - self.offset
        self.content[at:at + len(piece)] = piece if status == nbd.READ_DATA else bytes(len(piece))
        self.missing -= len(piece)
        self.chunks += 1
        return 0


class Extents:
    def __init__(self):
        self.found = []

    def __call__(self, context, offset, entries, error):
        assert context == CONTEXT
        if entries and isinstance(entries[0], int):
            entries = list(zip(entries[::2], entries[1::2]))
        self.found += entries
        return 0


class Disk:
    def __init__(self, handle):
        self.handle = handle
        size = handle.get_size()
        self.content = bytearray(handle.pread(size, 0))

    def expected(self, command, flags):
        """The errors one of which the answer must be; empty if it must be a success."""
        if command == "pwrite" and AUTO_FLAG:
            flags &= ~PAYLOAD_LEN  # which the library sets and clears itself
        if command in CHANGES and not WRITABLE:
            return {"EPERM"}
        if command == "cache" or flags & ~ALLOWED[command]:
            return {"EINVAL"}
        if REPLIES == "simple" and command.startswith("block_status"):
            return {"EINVAL"}
        return set()

    def ask(self, command, offset, flags, is_async):
        """Carries it out and compares; all its bytes lie in the BYTES from offset on."""
        length = 0 if command == "flush" else min(BYTES, len(self.content) - offset)
        data = bytes([(offset + flags) % 255 + 1]) * length
        pieces, extents, buffer = Pieces(offset, length), Extents(), nbd.Buffer(length)
        words = {"pread": (length, offset), "pread_structured": (length, offset, pieces), "pwrite": (data, offset),
                 "flush": (), "trim": (length, offset), "cache": (length, offset), "zero": (length, offset),
                 "block_status": (length, offset, extents), "block_status_64": (length, offset, extents),
                 "block_status_filter": (length, offset, [CONTEXT], extents)}[command]
        refusals = self.expected(command, flags)
        try:
            got = self._call(command, words, flags, is_async, buffer)
        except nbd.Error as refused:
            is_slow = command == "zero" and flags & FAST_ZERO and not refusals and refused.errno == "ENOTSUP"
            assert is_slow or refused.errno in refusals, (command, flags, is_async, refused.errno, str(refused))
            return
        assert not refusals, f"{command} with flags {flags:#x} was not refused"
        end = offset + length
        if command == "pread":
            assert got == self.content[offset:end], f"a read at {offset} is wrong"
        elif command == "pread_structured":
            assert pieces.missing == 0 and pieces.content == self.content[offset:end], f"a read at {offset} is wrong"
            assert pieces.chunks == 1 or not flags & DF
        elif command == "pwrite":
            self.content[offset:end] = data
        elif command == "zero":
            self.content[offset:end] = bytes(length)
        elif command == "trim":
            now = self.handle.pread(length, offset)
            assert all(new in (0, old) for new, old in zip(now, self.content[offset:end])), "a trim made up bytes"
            self.content[offset:end] = now
        elif command.startswith("block_status"):
            self._check_extents(extents.found, offset, length, flags)

    def _call(self, command, words, flags, is_async, buffer):
        if not is_async:
            return getattr(self.handle, command)(*words, flags=flags)
        if command.startswith("pread"):
            words = (buffer, *words[1:])
        run(self.handle, getattr(self.handle, f"aio_{command}")(*words, flags=flags))
        return buffer.to_bytearray() if command == "pread" else None

    def _check_extents(self, found, offset, length, flags):
        assert found and all(extent > 0 for extent, _ in found)
        assert sum(extent for extent, _ in found[:-1]) < length
        assert all(one[1] != other[1] for one, other in zip(found, found[1:]))
        if flags & REQ_ONE:
            assert len(found) == 1 and found[0][0] <= length
        at = offset
        for extent, state in found:
            assert not state & HOLE or state & ZERO
            if state & ZERO:
                assert not any(self.content[at:min(at + extent, offset + length)]), "not zero as was told"
            at += extent

    def compare(self):
        assert self.handle.pread(len(self.content), 0) == self.content, "the disk and its copy have parted"


def every_flag_on_every_command(disk):
    # With extended headers libnbd sets PAYLOAD_LEN where it belongs; anywhere else it would announce a payload.
    flags = [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, UNKNOWN_FLAG] + ([PAYLOAD_LEN] if REPLIES != "extended" else [])
    every_set = [sum(flag for i, flag in enumerate(flags) if number >> i & 1) for number in range(1 << len(flags))]
    offset = 0
    for command in sorted(COMMANDS):
        if not has(command) or (command == "block_status_filter" and REPLIES != "extended"):
            continue
        for chosen in every_set:
            for is_async in (False, True):
                disk.ask(command, offset, chosen, is_async)
                offset = (offset + 3989) % (len(disk.content) - 1)
    disk.compare()


def many_at_once(disk):
    handle, content = disk.handle, disk.content
    if WRITABLE:
        wanted = []
        for number in range(100):
            offset, data = number * 9001, bytes([number + 1]) * 9001
            wanted.append(handle.aio_pwrite(data, offset))
            content[offset:offset + len(data)] = data
        for cookie in reversed(wanted):
            run(handle, cookie)
        run(handle, handle.aio_flush())
    buffers = [nbd.Buffer(9001) for _ in range(100)]
    wanted = [handle.aio_pread(buffer, number * 9001) for number, buffer in enumerate(buffers)]
    for number, cookie in enumerate(wanted):
        run(handle, cookie)
        assert buffers[number].to_bytearray() == content[number * 9001:(number + 1) * 9001]


def main():
    the_library_is_known()
    every_option()
    handle = new_handle()
    handle.opt_go()
    what_the_export_can(handle)
    # What the server refuses is the question, and not what the library does.
    handle.set_strict_mode(AUTO_FLAG)
    disk = Disk(handle)
    every_flag_on_every_command(disk)
    many_at_once(disk)
    disk.compare()
    handle.shutdown()
    print(f"libnbd {handle.get_version()}: every command with {REPLIES} replies")


main()
