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


def request(command, offset=0, length=0, command_flags=0, cookie=1, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, command_flags, command, cookie, offset, length)


EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED = 1, 2, 3, 5, 6, 7, 8
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
    "modern_client_tries_everything": flags() + option(11) + option(STRUCTURED)
    + option(10, struct.pack(">I", 4) + b"disk" + struct.pack(">II", 1, 15) + b"base:allocation")
    + query(GO, b"disk", 3) + request(READ, 0, 4096),
    "starttls_is_not_served": flags() + option(STARTTLS) + query(GO, b"disk"),
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
    "half_a_request": request(READ, 0, 512)[:14],
}

for target, conversations in (("handshake", HANDSHAKES), ("requests", REQUESTS)):
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    for name, said in conversations.items():
        (CORPUS / target / name).write_bytes(said)
