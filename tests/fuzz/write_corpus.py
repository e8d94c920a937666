#!/usr/bin/env python3
"""Writes the named conversations of corpus/: what a client says, byte for byte, one file per conversation.

Run it after adding one here. What a fuzzer finds is added to the same directories as a file named after the defect.
"""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
FIXED, NO_ZEROES = 1, 2


def flags(value=FIXED | NO_ZEROES):
    return struct.pack(">I", value)


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def query(number, name, *infos):
    return option(number, struct.pack(">I", len(name)) + name + struct.pack(f">H{len(infos)}H", len(infos), *infos))


def contexts(number, name, *queries):
    return option(number, struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
                  + b"".join(struct.pack(">I", len(each)) + each for each in queries))


def request(command, offset=0, length=0, command_flags=0, cookie=1, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, command_flags, command, cookie, offset, length)


def extended_request(command, offset=0, length=0, command_flags=0, payload=None, cookie=1, magic=0x21E41C71):
    """With a payload, its length and PAYLOAD_LEN are what the header says."""
    if payload is not None:
        length, command_flags = len(payload), command_flags | 32
    return struct.pack(">IHHQQQ", magic, command_flags, command, cookie, offset, length) + (payload or b"")


def status(size, offset, length, *extents, extended=False, block_shift=0, block_sizes=False, req_one=False):
    """What fuzz_block_status reads: the export, the request, and what was found. The file's length tells the mode."""
    found = struct.pack(">QBBBQQ", size, block_shift, not block_sizes, not req_one, offset, length)
    for extent_length, extent_flags in extents:
        found += struct.pack(">QB", extent_length, extent_flags)
    return found + (b"\0" if (len(found) % 2 == 1) != extended else b"")


EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED = 1, 2, 3, 5, 6, 7, 8
LIST_CONTEXTS, SET_CONTEXTS, EXTENDED = 9, 10, 11
ALLOCATION = b"base:allocation"
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)

HANDSHAKES = {
    "linux_client_goes": flags() + query(GO, b"disk"),
    "go_with_every_info": flags() + query(GO, b"disk", 0, 1, 2, 3),
    "go_to_the_default": flags() + query(GO, b""),
    "go_to_an_unknown_export_then_abort": flags() + query(GO, b"nowhere") + option(ABORT),
    "info_then_go": flags() + query(INFO, b"disk", 3) + query(GO, b"disk", 3),
    "list_then_abort": flags() + option(LIST) + option(ABORT),
    "list_with_data": flags() + option(LIST, b"x"),
    "old_client_names_its_export": flags(0) + option(EXPORT_NAME, b"disk"),
    "export_name_with_zeroes": flags(FIXED) + option(EXPORT_NAME, b"disk"),
    "export_name_too_long": flags() + option(EXPORT_NAME, b"n" * 300),
    "export_name_with_nul": flags() + option(EXPORT_NAME, b"di\0sk"),
    "modern_client_tries_everything": flags() + option(EXTENDED) + option(STRUCTURED)
    + contexts(SET_CONTEXTS, b"disk", ALLOCATION) + query(GO, b"disk", 3) + request(READ, 0, 4096),
    "structured_replies": flags() + option(STRUCTURED) + query(GO, b"disk"),
    "structured_replies_with_data": flags() + option(STRUCTURED, b"x") + query(GO, b"disk"),
    "structured_replies_twice": flags() + option(STRUCTURED) * 2 + query(GO, b"disk"),
    "structured_replies_then_export_name": flags() + option(STRUCTURED) + option(EXPORT_NAME, b"disk"),
    "structured_replies_then_extended_headers": flags() + option(STRUCTURED) + option(EXTENDED) + query(GO, b"disk"),
    "extended_headers_twice": flags() + option(EXTENDED) * 2 + query(GO, b"disk"),
    "extended_headers_then_export_name": flags() + option(EXTENDED) + option(EXPORT_NAME, b"disk"),
    "contexts_without_structured_replies": flags() + contexts(LIST_CONTEXTS, b"disk")
    + contexts(SET_CONTEXTS, b"disk", ALLOCATION) + query(GO, b"disk"),
    "contexts_listed_with_a_wildcard": flags() + option(STRUCTURED) + contexts(LIST_CONTEXTS, b"disk", b"base:", b"qemu:"),
    "context_of_another_export": flags() + option(STRUCTURED) + contexts(SET_CONTEXTS, b"disk", ALLOCATION)
    + query(INFO, b"") + query(GO, b""),
    "context_chosen_then_taken_back": flags() + option(EXTENDED) + contexts(SET_CONTEXTS, b"disk", ALLOCATION)
    + contexts(SET_CONTEXTS, b"nowhere", ALLOCATION) + query(GO, b"disk"),
    "context_query_without_a_colon": flags() + option(STRUCTURED) + contexts(SET_CONTEXTS, b"disk", b"allocation"),
    "context_queries_past_the_limit": flags() + option(STRUCTURED) + contexts(LIST_CONTEXTS, b"", *[b"a:"] * 9),
    "context_query_count_of_4_gib": flags() + option(STRUCTURED)
    + option(LIST_CONTEXTS, struct.pack(">III", 0, 0xFFFFFFFF, 0)),
    "context_query_past_its_end": flags() + option(STRUCTURED)
    + option(SET_CONTEXTS, struct.pack(">III", 0, 1, 0xFFFFFFFF) + ALLOCATION),
    "starttls_then_go": flags() + option(STARTTLS) + query(GO, b"disk"),
    "starttls_with_data": flags() + option(STARTTLS, b"x") + option(STARTTLS) + query(GO, b"disk"),
    "starttls_twice": flags() + option(STARTTLS) * 2 + query(GO, b"disk"),
    "starttls_forgets_what_was_agreed": flags() + option(STRUCTURED) + contexts(SET_CONTEXTS, b"disk", ALLOCATION)
    + option(STARTTLS) + option(STRUCTURED) + query(GO, b"disk"),
    "export_name_before_starttls": flags() + option(EXPORT_NAME, b"disk"),
    "starttls_after_a_taste_of_everything": flags() + option(LIST) + query(INFO, b"disk") + option(EXTENDED)
    + option(99, b"data") + option(STARTTLS) + option(LIST) + option(ABORT),
    "unknown_client_flag": flags(0x80000003),
    "option_without_fixed_newstyle": flags(0) + option(LIST),
    "wrong_option_magic": flags() + b"IHAVEOPS" + bytes(8),
    "option_of_4_gib": flags() + b"IHAVEOPT" + struct.pack(">II", GO, 0xFFFFFFFF),
    "query_name_past_its_end": flags() + option(GO, struct.pack(">IH", 0xFFFFFFFA, 0)),
    "query_too_long_for_the_buffer": flags() + query(GO, b"n" * 300) + query(GO, b"disk"),
    "too_many_options": flags() + option(99) * 17,
    "requests_right_behind_go": flags() + query(GO, b"disk") + request(READ, 0, 512) + request(DISC),
    "leaves_in_the_middle_of_an_option": flags() + query(GO, b"disk")[:-3],
}

REQUESTS = {
    "every_command": b"".join(request(command, 4096, 4096) for command in range(9)),
    "every_flag_on_every_command": b"".join(
        request(command, 0, 512, 1 << bit) for command in range(9) for bit in range(16)),
    "around_the_end": b"".join(
        request(command, (1 << 30) - 512 + delta, 512)
        for command in (READ, WRITE, TRIM, CACHE, ZEROES) for delta in (0, 1, 512, 513)),
    "no_length": b"".join(request(command, 512) for command in range(8)),
    "offsets_that_wrap": b"".join(
        request(command, 2**64 - before, 8192) for command in range(8) for before in (1, 4096, 8192)),
    "around_the_longest_payload": b"".join(
        request(command, 0, (32 << 20) + delta) for command in (READ, WRITE) for delta in (-1, 0, 1)),
    "zeroes_of_4_gib": request(ZEROES, 0, 2**32 - 1, 2) + request(ZEROES, 0, 2**32 - 1, 16),
    "unaligned_for_those_who_asked": request(READ, 1, 512) + request(WRITE, 512, 511),
    "unknown_command": request(0xFFFF, 0, 512),
    "wrong_magic": request(READ, 0, 512) + request(READ, 0, 512, magic=0x25609514),
    "extended_every_command": b"".join(extended_request(command, 4096, 4096) for command in range(9)),
    "extended_every_flag_on_every_command": b"".join(
        extended_request(command, 0, 512, 1 << bit) for command in range(9) for bit in range(16)),
    "extended_writes": extended_request(WRITE, 0, payload=bytes(32)) + extended_request(WRITE, 512, 512),
    "extended_lengths_of_64_bits": b"".join(
        extended_request(command, 512, length) for command in (READ, TRIM, CACHE, ZEROES, STATUS)
        for length in (2**32, 2**39, 2**40 - 512, 2**63, 2**64 - 1)),
    "extended_payload_past_all_limits": extended_request(TRIM, 0, (32 << 20) + 1, 32),
    "extended_status_of_one_context": extended_request(STATUS, 0, 12, 32) + struct.pack(">QI", 2**33, 1) + bytes(20),
    "extended_status_of_another_context": extended_request(STATUS, 0, 12, 32) + struct.pack(">QI", 512, 2) + bytes(20),
    "extended_status_of_nothing": extended_request(STATUS, 512, 0) + extended_request(STATUS, 0, 8, 32) + bytes(32),
    "extended_wrong_magic": extended_request(READ, 0, 512, magic=0x21E41C70),
    "half_a_request": request(READ, 0, 512)[:14],
}

DATA, HOLE, ZERO = 0, 3, 2
STATUSES = {
    name + suffix: status(*arguments, extended=suffix == "_extended", **options)
    for suffix in ("", "_extended")
    for name, arguments, options in (
        ("data_then_hole", (1 << 30, 0, 8192, (4096, DATA), (8192, HOLE)), {}),
        ("nothing_found", (1 << 30, 512, 8192), {}),
        ("empty_and_equal_extents", (1 << 30, 0, 8192, (0, ZERO), (512, HOLE), (0, DATA), (512, HOLE)), {}),
        ("one_of_many", (1 << 30, 0, 100, (4096, DATA), (8192, HOLE)), {"req_one": True}),
        ("longer_than_32_bits", (1 << 40, 0, 2**32 - 1, (512, DATA), (1 << 39, HOLE)), {}),
        ("one_longer_than_32_bits", (1 << 40, 0, 2**32 - 1, (1 << 39, HOLE)), {"req_one": True}),
        ("past_the_end_of_the_export", (10_000, 8192, 1808, (2**64 - 1, HOLE), (2**64 - 1, DATA)), {}),
        ("blocks_of_two_kinds", (10_000, 0, 9728, (100, DATA), (1000, HOLE), (9999, ZERO)),
         {"block_shift": 9, "block_sizes": True}),
        ("cut_short_in_a_block", (1 << 20, 65_536, 65_536, (100, HOLE)), {"block_shift": 16, "block_sizes": True}),
        ("found_past_the_request", (1 << 20, 0, 512, (100, DATA), (1000, HOLE)),
         {"block_shift": 9, "block_sizes": True}),
    )
}

# --- Whole sessions: what fuzz_sessions reads is the stage, the schedule, and all that the client says.

SPARSE, WRITTEN, DISK, LARGE = range(4)
NARROW, SMALL_SOCKET, SHORT_IO, READ_ONLY = 4, 8, 16, 32


def session(said, stage=SPARSE, schedule=b""):
    return bytes((stage, len(schedule))) + schedule + said


def steps(*decisions):
    """Each is a name, or a name and how much of it."""
    names = ("say", "say_much", "run", "run_", "disk", "drain", "hear", "disturb")
    pairs = (each if isinstance(each, tuple) else (each, 0) for each in decisions)
    return bytes(names.index(name) | much << 3 for name, much in pairs)


STOP, SAY_NO_MORE, HANG_UP, NO_PUNCH, NO_ZERO_RANGE, NO_DISCARD, NO_SYNC, NO_MAP, FAIL_FIRST, FAIL_SECOND = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 12)
GREET = flags() + query(GO, b"")
GREET_STRUCTURED = flags() + option(STRUCTURED) + contexts(SET_CONTEXTS, b"", ALLOCATION) + query(GO, b"")
GREET_EXTENDED = flags() + option(EXTENDED) + contexts(SET_CONTEXTS, b"", ALLOCATION) + query(GO, b"")


def write(offset, payload, command_flags=0):
    return request(WRITE, offset, len(payload), command_flags) + payload


def extended_write(offset, payload, command_flags=0):
    return extended_request(WRITE, offset, 0, command_flags, payload)


def some_of_all(one, one_write):
    """A bit of everything, with edges that overlap."""
    return (one_write(500, b"w" * 700) + one(READ, 0, 2048) + one(TRIM, 0, 4096) + one_write(1023, b"x" * 2, 1)
            + one(ZEROES, 100, 3000) + one(ZEROES, 0, 4096, 2) + one(FLUSH) + one(READ, 1000, 1100)
            + one(STATUS, 0, 4096) + one(CACHE, 0, 512) + one(READ, 4000, 96) + one_write(4090, b"end"))


ALL_SIMPLE = some_of_all(request, write)
ALL_EXTENDED = some_of_all(extended_request, extended_write)
SLOWLY = steps(*(("say", 20), "run", "disk", "drain", ("hear", 4)) * 12)

SESSIONS = {
    "linux_client_mounts_and_leaves": session(GREET + request(READ, 0, 4096) + write(0, b"s" * 1024)
                                              + request(FLUSH) + request(DISC)),
    "nothing_is_said": session(b""),
    "a_handshake_that_ends_in_the_middle": session(GREET[:-3]),
    "a_handshake_that_aborts": session(flags() + option(LIST) + option(ABORT)),
    "old_client_reads": session(flags(0) + option(EXPORT_NAME) + request(READ, 5, 1000) + request(DISC)),
    "no_goodbye": session(GREET + ALL_SIMPLE),
    "goodbye_with_everything_in_flight": session(GREET + ALL_SIMPLE + request(DISC)),
    "requests_behind_a_goodbye": session(GREET + request(READ, 0, 512) + request(DISC) + ALL_SIMPLE),
    "nonsense_behind_requests": session(GREET + ALL_SIMPLE + b"nonsense" * 8),
    "a_header_in_pieces": session(GREET + request(READ, 0, 512) + request(DISC), SPARSE,
                                  steps(*(("say", 3), "run") * 24)),
    "everything_slowly": session(GREET + ALL_SIMPLE + request(DISC), SPARSE | SHORT_IO, SLOWLY),
    "structured_everything": session(GREET_STRUCTURED + ALL_SIMPLE + request(DISC)),
    "structured_everything_slowly": session(GREET_STRUCTURED + ALL_SIMPLE + request(DISC), SPARSE | SHORT_IO, SLOWLY),
    "structured_df_and_req_one": session(GREET_STRUCTURED + request(READ, 0, 4096, 4) + request(STATUS, 0, 4096, 8)
                                         + request(DISC)),
    "extended_everything": session(GREET_EXTENDED + ALL_EXTENDED + extended_request(DISC)),
    "extended_everything_slowly": session(GREET_EXTENDED + ALL_EXTENDED + extended_request(DISC), SPARSE | SHORT_IO,
                                          SLOWLY),
    "extended_status_with_a_payload": session(
        GREET_EXTENDED + extended_request(STATUS, 0, payload=struct.pack(">QI", 4096, 1))
        + extended_request(STATUS, 0, payload=struct.pack(">QI", 4096, 2))
        + extended_request(STATUS, 0, payload=b"short") + extended_request(READ, 0, 512)),
    "zeroes_that_must_be_written": session(GREET + write(100, b"z" * 4100) + request(ZEROES, 50, 8000)
                                           + request(READ, 0, 8192), WRITTEN),
    "fast_zeroes_where_there_are_none": session(GREET_STRUCTURED + request(ZEROES, 0, 8192, 16), WRITTEN),
    "a_disk_with_discard": session(GREET_EXTENDED + ALL_EXTENDED, DISK),
    "a_disk_that_knows_no_discard": session(GREET + ALL_SIMPLE, DISK, steps(("disturb", NO_DISCARD))),
    "a_file_system_without_holes": session(GREET + ALL_SIMPLE, SPARSE,
                                           steps(("disturb", NO_PUNCH), ("disturb", NO_ZERO_RANGE))),
    "reads_that_leave_out_holes": session(GREET_STRUCTURED + write(40_000, b"d" * 5000)
                                          + request(READ, 0, 81_000) + request(READ, 3, 70_000), LARGE),
    "reads_that_leave_out_holes_slowly": session(GREET_EXTENDED + extended_write(40_000, b"d" * 5000)
                                                 + extended_request(READ, 0, 81_000), LARGE | SHORT_IO | SMALL_SOCKET,
                                                 SLOWLY),
    "a_map_that_cannot_be_had": session(GREET_STRUCTURED + request(READ, 0, 81_000) + request(STATUS, 0, 81_000), LARGE,
                                        steps(("disturb", NO_MAP))),
    "changes_of_a_read_only_export": session(GREET_STRUCTURED + ALL_SIMPLE + request(DISC), SPARSE | READ_ONLY),
    "a_client_that_does_not_read": session(GREET + request(READ, 0, 4096) * 40 + request(DISC),
                                           SPARSE | NARROW | SMALL_SOCKET, steps(*(("say_much", 4), ("run", 9),
                                                                                  ("disk", 9), "drain") * 10)),
    "more_than_the_budget": session(GREET + (write(1, b"b" * 600) + request(READ, 0, 4196)) * 8, SPARSE | NARROW),
    "a_refused_write_that_is_drained": session(GREET + write(4000, b"p" * 3000) + request(READ, 0, 512)),
    "a_write_longer_than_what_follows": session(GREET + write(0, b"p" * 3000)[:-1]),
    "a_write_past_all_limits": session(GREET + request(WRITE, 0, (64 << 20) + 1) + bytes(100)),
    "a_read_that_fails": session(GREET + request(READ, 0, 512) + request(READ, 0, 512), SPARSE,
                                 steps(("disturb", FAIL_FIRST))),
    "a_read_that_fails_in_the_middle": session(GREET_STRUCTURED + request(READ, 0, 4196), SPARSE | SHORT_IO,
                                               steps(("disturb", FAIL_SECOND))),
    "an_unaligned_write_that_fails": session(GREET + write(500, b"w" * 700) * 3, SPARSE,
                                             steps(("disturb", FAIL_SECOND))),
    "a_sync_that_fails": session(GREET + write(0, b"w" * 512, 1) + request(FLUSH) * 3, SPARSE,
                                 steps(("disturb", NO_SYNC))),
    "hung_up_with_requests_in_flight": session(GREET + ALL_SIMPLE, SPARSE,
                                               steps(("say_much", 7), ("run", 31), "disk", "disk", ("disturb", HANG_UP))),
    "says_no_more_in_the_middle_of_a_payload": session(GREET + write(0, b"w" * 2000), SPARSE,
                                                       steps(("say_much", 4), ("run", 31), ("disturb", SAY_NO_MORE))),
    "stopped_before_the_first_byte": session(GREET + ALL_SIMPLE, SPARSE, steps(("disturb", STOP))),
    "stopped_in_the_handshake": session(GREET + ALL_SIMPLE, SPARSE, steps("run", "say", "run", ("disturb", STOP))),
    "stopped_with_requests_in_flight": session(GREET + ALL_SIMPLE, SPARSE,
                                               steps(("say_much", 4), ("run", 31), "disk", ("disturb", STOP))),
}

for target, conversations in (("handshake", HANDSHAKES), ("requests", REQUESTS), ("block_status", STATUSES),
                              ("sessions", SESSIONS)):
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    for name, said in conversations.items():
        (CORPUS / target / name).write_bytes(said)
