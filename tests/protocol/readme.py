#!/usr/bin/python3
"""Keeps protocol/README.md in step with the code: every number of the protocol and every limit stands there.

    readme.py TREE         check; exit status 1 and one line for each thing that is missing or wrong
    readme.py --self-test TREE    show that the check can fail: with one number of the code changed at a time, each is missed
"""
import re
import sys
from pathlib import Path

# The README writes GO (7) for option::go and DF (bit 2) for command_flag::df; what is hexadecimal in the code is so there.
ENUMS = ("option", "option_reply", "info", "command", "chunk", "error")
FLAGS = ("handshake_flag", "client_flag", "transmission_flag", "command_flag", "reply_flag", "state_flag")


def number(text):
    """The value of an expression of integer literals and shifts."""
    plain = re.sub(r"(?<=[0-9a-fA-F])U?L*\b", "", text.replace("'", "")).strip()
    if not re.fullmatch(r"[0-9a-fA-FxX<() +*-]+", plain):
        raise ValueError(text)
    return eval(plain, {"__builtins__": {}})  # Nothing but numbers and operators, as just checked.


def spelled(name):
    return name.rstrip("_").upper()


def size_in_words(value):
    """In bytes, or in the largest unit that divides it."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if value % unit == 0:
            return rf"\b({value}|{value // unit} {name})\b"
    return rf"\b{value}\b"


def expected(constants, handshake):
    """(what it is, the pattern that the README must have) of every number in the code."""
    for enum in ENUMS:
        body = re.search(rf"enum class {enum} [^{{]*{{([^}}]*)}}", constants).group(1)
        for name, value in re.findall(r"(?m)^\s*(\w+) = ([^,]+),", body):
            shown = value if "x" in value else str(number(value))
            yield f"{enum}::{name}", rf"\b{spelled(name)} \({shown}\)"
    for flags in FLAGS:
        body = re.search(rf"namespace {flags} {{(.*?)}}  // namespace", constants, re.S).group(1)
        for name, value in re.findall(r"constexpr std::uint\d+_t (\w+) = ([^;]+);", body):
            yield f"{flags}::{name}", rf"\b{spelled(name)} \(bit {number(value).bit_length() - 1}\)"
    for name, value in re.findall(r"constexpr std::uint\d+_t (\w+_magic) = (0x\w+);", constants):
        yield name, rf"`{value}`"
    limits = re.findall(r"constexpr std::\w+ (\w+_max) = ([^;]+);", constants)
    by_name = dict(limits)
    for name, value in limits:
        yield name, rf"(?m)^\|.*{size_in_words(number(by_name.get(value, value)))}.*`{name}`"
    body = re.search(r"struct handshake_limits {(.*?)};", handshake, re.S).group(1)
    for name, value in re.findall(r"std::\w+ (\w+) = ([^;]+);", body):
        yield name, rf"(?m)^\|.*{size_in_words(number(value))}.*`handshake_limits::{name}`"
    for name, value in re.findall(r'constexpr std::string_view (\w+) = "([^"]+)";', constants):
        yield name, rf"`{value}`"
    yield "allocation_context_id", rf"\bid {re.search(r'allocation_context_id = (.+?);', constants).group(1)}\b"
    yield "export_name_zeroes", rf"\b{re.search(r'export_name_zeroes = (.+?);', constants).group(1)} zero bytes\b"


def missing(constants, handshake, readme):
    return [name for name, pattern in expected(constants, handshake) if not re.search(pattern, readme)]


def self_test(constants, handshake, readme):
    """Changes every number of the code, one after the other, and names those whose change was not missed."""
    unseen = []
    for text, is_constants in ((constants, True), (handshake, False)):
        for found in re.finditer(r"(?m)^\s*(?:inline constexpr )?(?:std::\w+ )?(\w+) = ([^,;\"]+)[,;]", text):
            if not is_constants and "handshake_limits {" not in text[:found.start()].rsplit("struct ", 1)[-1]:
                continue
            other = hex(0x7ead7ead) if "x" in found.group(2) else "77777"
            if "<<" in found.group(2):
                other = "1U << 19" if "1U <<" in found.group(2) else "77U << 20"
            changed = text[:found.start(2)] + other + text[found.end(2):]
            files = (changed, handshake) if is_constants else (constants, changed)
            if not missing(*files, readme):
                unseen.append(found.group(1))
    return unseen


def main(arguments):
    if not arguments or arguments[:-1] not in ([], ["--self-test"]):
        print(__doc__)
        return 2
    tree = Path(arguments[-1])
    texts = [(tree / "protocol" / name).read_text(encoding="utf-8")
             for name in ("constants.hpp", "handshake.hpp", "README.md")]
    # Comments go, but for those by which the end of a namespace is found.
    texts[:2] = [re.sub(r"//.*", keep_namespace_end, text) for text in texts[:2]]
    if arguments[0] == "--self-test":
        unseen = self_test(*texts)
        print("\n".join(f"changed, and not missed: {name}" for name in unseen))
        return 1 if unseen else 0
    found = missing(*texts)
    print("\n".join(f"not in protocol/README.md as it is in the code: {name}" for name in found))
    return 1 if found else 0


def keep_namespace_end(comment):
    return comment.group(0) if comment.group(0).startswith("// namespace ") else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
