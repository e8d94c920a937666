#!/usr/bin/python3
"""The rules of the source tree, each as a function that lists what breaks it.

    layout.py --list                 the names of all rules
    layout.py RULE TREE              check a tree; exit status 1 and one line per complaint when it breaks the rule
    layout.py --self-test RULE       show that the rule can fail, on small trees made for it

A rule is a function from a tree to its complaints, with `breaks` (small trees that must be complained about, each a
dictionary from path to content) and `keeps` (trees that must not).
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LAYERS = ("protocol", "storage", "server")
FOLDERS = {*LAYERS, "tests", "packaging"}
NOT_OURS = {"build", ".git", ".cache"}
SKIPPED = 77

RULES = {}


class Skip(Exception):
    """The rule cannot be checked on this machine."""


def rule(breaks, keeps=()):
    def register(function):
        RULES[function.__name__] = (function, breaks, keeps)
        return function
    return register


def files(tree, *folders, suffixes=None):
    """Paths relative to the tree, sorted; those of the given folders only, if any are given."""
    for folder, subfolders, names in os.walk(tree):
        subfolders[:] = sorted(name for name in subfolders if name not in NOT_OURS and name != "__pycache__")
        for name in sorted(set(names) - NOT_OURS):  # .git is a file in a second work tree
            path = Path(folder, name).relative_to(tree)
            if folders and path.parts[0] not in folders:
                continue
            if suffixes is None or path.suffix in suffixes:
                yield path


def code(tree, *folders):
    return files(tree, *folders, suffixes={".hpp", ".cpp"})


def prose(tree):
    """Every file that people read: sources, scripts, documentation, build files."""
    for path in files(tree):
        content = (tree / path).read_bytes()[:4096]
        if b"\0" not in content and "corpus" not in path.parts:
            yield path


def text_of(tree, path):
    return (tree / path).read_text(encoding="utf-8", errors="replace")


def lines_with(pattern, tree, paths):
    for path in paths:
        for number, line in enumerate(text_of(tree, path).splitlines(), 1):
            found = re.search(pattern, line)
            if found:
                yield f"{path}:{number}: '{found.group(0).strip()}'"


def includes(tree, *folders):
    """(where, header as written with its brackets or quotes) of every include directive."""
    for path in code(tree, *folders):
        for number, line in enumerate(text_of(tree, path).splitlines(), 1):
            found = re.match(r'\s*#\s*include\s*(<[^>]+>|"[^"]+")', line)
            if found:
                yield path, number, found.group(1)


STANDARD_HEADERS = set("""
    algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat charconv chrono cinttypes climits
    clocale cmath compare complex concepts condition_variable coroutine csetjmp csignal cstdarg cstddef cstdint cstdio
    cstdlib cstring ctime cuchar cwchar cwctype deque exception execution expected filesystem format forward_list
    fstream functional future initializer_list iomanip ios iosfwd iostream istream iterator latch limits list locale
    map memory memory_resource mutex new numbers numeric optional ostream queue random ranges ratio regex
    scoped_allocator semaphore set shared_mutex source_location span sstream stack stdexcept stop_token streambuf
    string string_view strstream syncstream system_error thread tuple type_traits typeindex typeinfo unordered_map
    unordered_set utility valarray variant vector version
""".split())


def is_standard(header):
    return header[0] == "<" and header[1:-1] in STANDARD_HEADERS


def is_linux(header):
    """A header of the C library or the kernel, sockets excepted."""
    name = header[1:-1]
    is_socket = re.match(r"(sys/(socket|un)\.h|netdb\.h|netinet/.*|arpa/.*|linux/(nbd|tcp|in6?)\.h)$", name)
    return header[0] == "<" and not is_socket and re.match(r"((sys|linux|asm)/)?[a-z0-9_-]+\.h$", name)


# --- Layers -----------------------------------------------------------------------------------------------------

@rule(breaks=[{"protocol/a.hpp": "#include <boost/asio.hpp>\n"}, {"protocol/a.hpp": "#include <fmt/format.h>\n"},
              {"protocol/a.cpp": "#include <unistd.h>\n"}, {"protocol/a.cpp": '#include "storage/alignment.hpp"\n'},
              {"protocol/a.cpp": '#include "server/log.hpp"\n'}, {"protocol/a.cpp": '#include "wire.hpp"\n'}],
      keeps=[{"protocol/a.cpp": '#include "protocol/a.hpp"\n#include <span>\n', "server/b.cpp": "#include <fcntl.h>\n"}])
def protocol_includes_only_itself_and_the_standard_library(tree):
    for path, number, header in includes(tree, "protocol"):
        if not is_standard(header) and not header.startswith('"protocol/'):
            yield f"{path}:{number}: {header}"


@rule(breaks=[{"storage/a.hpp": "#include <boost/asio.hpp>\n"}, {"storage/a.cpp": "#include <fmt/core.h>\n"},
              {"storage/a.cpp": "#include <spdlog/spdlog.h>\n"}, {"storage/a.cpp": '#include "server/log.hpp"\n'},
              {"storage/a.cpp": '#include "protocol/wire.hpp"\n'}, {"storage/a.cpp": "#include <sys/socket.h>\n"}],
      keeps=[{"storage/a.cpp": '#include "storage/a.hpp"\n#include <span>\n#include <sys/eventfd.h>\n'
                               "#include <linux/fs.h>\n#include <fcntl.h>\n"}])
def storage_includes_only_itself_the_standard_library_and_linux(tree):
    for path, number, header in includes(tree, "storage"):
        if not is_standard(header) and not is_linux(header) and not header.startswith('"storage/'):
            yield f"{path}:{number}: {header}"


@rule(breaks=[{"storage/block_device.cpp": "#include <libaio.h>\n"}, {"storage/aio_queue.hpp": "#include <libaio.h>\n"},
              {"server/server.cpp": "#  include <libaio.h>\n"}],
      keeps=[{"storage/aio_queue.cpp": "#include <libaio.h>\n"}])
def only_aio_queue_includes_libaio(tree):
    for path, number, header in includes(tree):
        if header[1:-1] == "libaio.h" and path != Path("storage/aio_queue.cpp"):
            yield f"{path}:{number}: {header}"


@rule(breaks=[{"protocol/a.cpp": "boost::asio::io_context c;\n"}, {"storage/a.cpp": "fmt::print();\n"},
              {"storage/a.hpp": "namespace asio = x;\n"}, {"storage/a.cpp": "int s = ::socket(1, 2, 3);\n"},
              {"protocol/a.cpp": "::recv(fd, p, n, 0);\n"}],
      keeps=[{"protocol/a.cpp": "// It owns no socket, and recv is another's business.\n", "server/a.cpp": "fmt::x;\n"}])
def boost_fmt_and_sockets_stay_out_of_protocol_and_storage(tree):
    libraries = r"\b(boost|asio|fmt|spdlog)\s*::|namespace\s+(asio|net)\b"
    calls = r"(?<![\w:])::\s*(socket|accept4?|connect|recv\w*|send\w*|getaddrinfo)\s*\("
    yield from lines_with(f"{libraries}|{calls}", tree, code(tree, "protocol", "storage"))


@rule(breaks=[{"storage/a.hpp": "std::uint64_t cookie;\n"}, {"storage/a.cpp": "// Each export has one.\n"},
              {"storage/README.md": "NBD asks for it.\n"}, {"storage/a.cpp": "int nbd_flags;\n"},
              {"storage/a.hpp": "struct export_info;\n"}, {"storage/a.cpp": "// the mount options\n"}],
      keeps=[{"storage/a.cpp": "namespace aionbd { std::optional<int> x; }\n", "protocol/a.hpp": "int cookie;\n"}])
def the_words_of_nbd_stay_out_of_storage(tree):
    pattern = r"(?i)(?<![a-z])(cookie|option|export|nbd)(s|ed|ing)?(?![a-z])"
    yield from lines_with(pattern, tree, files(tree, "storage", suffixes={".hpp", ".cpp", ".md"}))


@rule(breaks=[{"server/session.cpp": "boost::asio::ssl::stream<int> s;\n"}, {"protocol/a.hpp": "bool uses_ssl;\n"},
              {"server/server.hpp": "#include <openssl/ssl.h>\n"}, {"protocol/tls_a.hpp": "#include <openssl/ssl.h>\n"}],
      keeps=[{"server/tls_stream.hpp": "ssl::stream<int> s;\n", "server/tls_context.cpp": "#include <openssl/ssl.h>\n"}])
def ssl_is_named_only_by_the_tls_files_of_the_server(tree):
    paths = (path for path in code(tree, *LAYERS) if path.parts[0] != "server" or not path.stem.startswith("tls_"))
    yield from lines_with(r"(?i)(?<![a-z])(open)?ssl(?![a-z])", tree, paths)


@rule(breaks=[{"protocol/CMakeLists.txt": "target_link_libraries(aionbd_protocol PUBLIC fmt::fmt)\n"},
              {"protocol/CMakeLists.txt": "find_package(Boost)\n"},
              {"server/CMakeLists.txt": "target_link_libraries(aionbd_protocol\n  PRIVATE aionbd_storage)\n"},
              {"protocol/CMakeLists.txt": "link_libraries(aio)\n"}],
      keeps=[{"protocol/CMakeLists.txt": "target_link_libraries(aionbd_protocol PRIVATE $<BUILD_INTERFACE:aionbd_build>)\n",
              "server/CMakeLists.txt": "target_link_libraries(aionbd_server PUBLIC aionbd_protocol)\n"}])
def the_protocol_target_links_nothing(tree):
    """Its own build flags excepted: aionbd_build carries warnings and the include path, no library."""
    harmless = {"PRIVATE", "$<BUILD_INTERFACE:aionbd_build>", "aionbd_build"}
    for path in files(tree):
        if path.name != "CMakeLists.txt":
            continue
        text = re.sub(r"#.*", "", text_of(tree, path))
        for linked in re.findall(r"target_link_libraries\s*\(\s*aionbd_protocol\s([^)]*)\)", text):
            yield from (f"{path}: links {word}" for word in linked.split() if word not in harmless)
        if path.parts[0] == "protocol":
            found = re.findall(r"(?<![\w_])(?:find_package|find_library|link_libraries|pkg_check_modules)\s*\(.*", text)
            yield from (f"{path}: {line}" for line in found)


@rule(breaks=[{"storage/CMakeLists.txt": "target_link_libraries(aionbd_storage PUBLIC ${LIBAIO_LIBRARY})\n"},
              {"storage/CMakeLists.txt": "target_link_libraries(aionbd_storage PRIVATE aionbd_build\n  PUBLIC aio)\n"},
              {"storage/CMakeLists.txt": "target_link_libraries(aionbd_storage PRIVATE aionbd_protocol)\n"},
              {"storage/CMakeLists.txt": "target_link_libraries(aionbd_storage PRIVATE Boost::headers)\n"}],
      keeps=[{"storage/CMakeLists.txt": "target_link_libraries(aionbd_storage PRIVATE ${LIBAIO_LIBRARY} aionbd_build\n"
                                        "  PUBLIC Threads::Threads)\n"}])
def the_storage_target_keeps_libaio_private(tree):
    path = Path("storage/CMakeLists.txt")
    text = re.sub(r"#.*", "", text_of(tree, path)) if (tree / path).exists() else ""
    for linked in re.findall(r"target_link_libraries\s*\(\s*aionbd_storage\s([^)]*)\)", text):
        scope = "PUBLIC"
        for word in linked.split():
            if word in ("PUBLIC", "PRIVATE", "INTERFACE"):
                scope = word
            elif re.search(r"(?i)libaio|^aio$", word) and scope != "PRIVATE":
                yield f"{path}: {scope} {word}"
            elif re.search(r"(?i)boost|fmt|spdlog|aionbd_(protocol|server)", word):
                yield f"{path}: {word}"


# --- Files ------------------------------------------------------------------------------------------------------

@rule(breaks=[{"bench/a.cpp": ""}, {"common/a.hpp": ""}], keeps=[{"tests/bench/a.cpp": "", "build/x": "", ".ci/run": ""}])
def the_top_level_has_five_folders(tree):
    for entry in sorted(tree.iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in FOLDERS | NOT_OURS:
            yield entry.name


def line_limit(path):
    if path == Path("server/main.cpp"):
        return 100
    if path.match("tests/fuzz/fuzz_*.cpp"):
        return 40
    return 700 if path.parts[0] == "tests" else 400


@rule(breaks=[{"storage/a.cpp": "\n" * 401}, {"tests/storage/a_test.cpp": "\n" * 701}, {"server/main.cpp": "\n" * 101},
              {"tests/fuzz/fuzz_requests.cpp": "\n" * 41}, {"packaging/a.sh": "\n" * 401}],
      keeps=[{"storage/a.cpp": "\n" * 400, "tests/storage/a_test.cpp": "\n" * 700, "server/main.cpp": "\n" * 100}])
def files_are_within_their_line_limit(tree):
    for path in files(tree, suffixes={".hpp", ".cpp", ".sh", ".py"}):
        length = len(text_of(tree, path).splitlines())
        if length > line_limit(path):
            yield f"{path}: {length} lines, the limit is {line_limit(path)}"


@rule(breaks=[{"storage/a.hpp": "// Nothing.\n"}, {"tests/support/a.hpp": "#ifndef A\n#define A\n#pragma once\n#endif\n"},
              {"protocol/a.hpp": "#include <span>\n#pragma once\n"}],
      keeps=[{"protocol/a.hpp": "// What it is.\n#pragma once\n\n#include <span>\n"}])
def every_header_begins_with_pragma_once(tree):
    for path in files(tree, suffixes={".hpp"}):
        directives = re.findall(r"(?m)^\s*#\s*(.*)$", text_of(tree, path))
        if not directives or directives[0].split() != ["pragma", "once"]:
            yield f"{path}"


def is_script(tree, path):
    with open(tree / path, "rb") as opened:
        return opened.read(2) == b"#!"


@rule(breaks=[{"packaging/a.sh": "#!/bin/bash\n"}, {".ci/run": "#!/bin/bash\n"}],
      keeps=[{"packaging/list.sh": "# Read by others.\n"}])
def scripts_are_executable(tree):
    for path in files(tree):
        if is_script(tree, path) and not os.stat(tree / path).st_mode & 0o111:
            yield f"{path}"


@rule(breaks=[{"packaging/a.sh": "if true; then\n"}, {".ci/run": "#!/bin/bash\ncase x in\n"}],
      keeps=[{"packaging/a.sh": "if true; then :; fi\n", "tests/a.py": "#!/usr/bin/python3\nif True:\n  pass\n"}])
def shell_scripts_parse(tree):
    for path in prose(tree):
        first_line = text_of(tree, path).split("\n", 1)[0]
        if path.suffix == ".sh" or re.match(r"#!.*\b(ba)?sh\b", first_line):
            parsed = subprocess.run(["bash", "-n", tree / path], stderr=subprocess.PIPE, text=True, check=False)
            if parsed.returncode != 0:
                yield f"{path}: {parsed.stderr.strip()}"


# --- Text -------------------------------------------------------------------------------------------------------
# The samples below are put together from halves, or this file would break its own rules.

@rule(breaks=[{"server/a.cpp": "// TO" "DO: later\n"}, {"README.md": "FIX" "ME\n"}, {"packaging/a.sh": "# XX" "X\n"}],
      keeps=[{"tests/run.sh": 'mktemp "/tmp/image.XXXX' 'XX"\n'}])
def nothing_is_left_to_do(tree):
    yield from lines_with(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b", tree, prose(tree))


@rule(breaks=[{"README.md": "cd /ho" "me/me/aionbd\n"}, {"tests/run.sh": "cd /wo" "rk/main\n"},
              {"CMakeLists.txt": "set(X /ro" "ot/x)\n"}],
      keeps=[{"README.md": "see https://example.org/home/page and a/work/tree, or /usr/bin/env\n"}])
def no_path_of_a_certain_machine(tree):
    yield from lines_with(r"(?<![\w.~/-])/(work|home|root|Users)/\w+", tree, prose(tree))


@rule(breaks=[{"protocol/a.cpp": "auto* p = reinterpret_cast<int*>(q);\n"}, {"protocol/a.hpp": "#pragma pack(1)\n"},
              {"protocol/a.hpp": "struct [[gnu::packed]] x;\n"}],
      keeps=[{"server/a.cpp": "reinterpret_cast<int*>(q);\n"}])
def protocol_reads_and_writes_bytes_without_casts(tree):
    yield from lines_with(r"\breinterpret_cast\b|#\s*pragma\s+pack|\bpacked\b\s*[\])]", tree, code(tree, "protocol"))


@rule(breaks=[{"storage/a.cpp": "auto x = offset & (alignment - 1);\n"}, {"server/a.cpp": "x & ~(align_ - 1)\n"}],
      keeps=[{"storage/alignment.hpp": "return offset & (alignment - 1);\n"}])
def rounding_is_done_only_in_alignment_hpp(tree):
    paths = (path for path in code(tree, *LAYERS) if path.name != "alignment.hpp")
    yield from lines_with(r"&\s*~?\s*\(\s*\w*align\w*(\(\))?\s*-\s*1", tree, paths)


@rule(breaks=[{"README.md": "See [it](docs/nowhere.md).\n"}, {"tests/README.md": "[up](../LICENCE)\n"}],
      keeps=[{"README.md": "[a](tests/README.md#part), [b](https://example.org/x), [c](#here)\n", "tests/README.md": ""}])
def links_in_the_documentation_lead_somewhere(tree):
    for path in files(tree, suffixes={".md"}):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(tree, path)):
            if "://" not in target and not target.startswith("mailto:") and not (tree / path.parent / target).exists():
                yield f"{path}: {target}"


@rule(breaks=[{"storage/a.cpp": "int  f( ) {return 1 ;}\n"}],
      keeps=[{"storage/a.cpp": "int f() { return 1; }\n", "packaging/a.sh": "x  y\n"}])
def code_is_formatted_by_clang_format(tree):
    """With version 14 only: others break lines differently. The remedy is clang-format-14 -i FILE."""
    program = shutil.which("clang-format-14")
    if program is None:
        raise Skip("no clang-format-14 here")
    for path in code(tree):
        formatted = subprocess.run([program, "--style=file", "--fallback-style=Google", path], cwd=tree,
                                   stdout=subprocess.PIPE, check=True).stdout
        if formatted != (tree / path).read_bytes():
            yield f"{path}"


# --- Tests ------------------------------------------------------------------------------------------------------

RULES_OF_THE_PROTOCOL = range(1, 39)
# These speak of what happens before a mode of replies is agreed (1, 9, 10), or of sockets and files (37, 38).
RULES_BEFORE_ANY_MODE = {1, 9, 10, 37, 38}
MODES = ("simple", "structured", "extended")
DEFECTS = """
    2005-3534 2011-1925 2013-6410 2013-7441 2015-0847 2022-26495 2022-26496 2017-7539 2017-9524 2017-15118 2017-15119
    2020-10761 2024-7409 2019-14850 2019-14851 2021-3716 2025-47711 2025-47712
""".split()
DEFECTS_WITHOUT_A_NUMBER = ("unadvertised fast zero", "more than 64 mib", "payload of 33 mib", "connection limit")


def names_of_tests(tree):
    """Each with the tags behind it, in lower case, with blanks for all that holds words together."""
    for path in files(tree, "tests", suffixes={".cpp", ".py"}):
        pattern = r'TEST_CASE\(\s*("[^"]*"(?:,\s*"[^"]*")?)' if path.suffix == ".cpp" else r"(?m)^    def ([a-z]\w*)\(self\)"
        for name in re.findall(pattern, text_of(tree, path)):
            yield " ".join(re.findall(r"[a-z0-9]+", name.lower()))


def _modes_in(name):
    return set(MODES) if "every mode" in name else {mode for mode in MODES if mode in name.split()}


_WHAT_MUST_BE_TESTED = "\n".join(
    [f'TEST_CASE("rule {number}: x", "[simple][structured][extended]") {{' for number in RULES_OF_THE_PROTOCOL] +
    [f'TEST_CASE("CVE-{number}: x") {{' for number in DEFECTS] +
    [f'TEST_CASE("defect: {words.replace(" ", "_")}") {{' for words in DEFECTS_WITHOUT_A_NUMBER])


@rule(breaks=[{"tests/a_test.cpp": _WHAT_MUST_BE_TESTED.replace("rule 7:", "rule 70:")},
              {"tests/a_test.cpp": _WHAT_MUST_BE_TESTED.replace('24: x", "[simple]', '24: x", "')},
              {"tests/a_test.cpp": _WHAT_MUST_BE_TESTED.replace("CVE-2005-3534", "CVE-2005-353")},
              {"tests/a_test.cpp": _WHAT_MUST_BE_TESTED.replace("connection_limit", "limit")}],
      keeps=[{"tests/a_test.cpp": _WHAT_MUST_BE_TESTED},
             {"tests/a_test.cpp": _WHAT_MUST_BE_TESTED.replace("rule 7:", "rule 70:"),
              "tests/b_test.py": "    def rule_7_holds_in_every_mode(self):\n"}])
def every_rule_and_every_defect_has_a_test_named_after_it(tree):
    """The rules of the protocol in each mode of replies, and what other servers did wrong."""
    names = list(names_of_tests(tree))
    for number in RULES_OF_THE_PROTOCOL:
        named = [name for name in names if re.search(rf"\brule {number}\b", name)]
        if not named:
            yield f"rule {number} has no test"
        elif number not in RULES_BEFORE_ANY_MODE:
            missing = set(MODES).difference(*map(_modes_in, named))
            yield from (f"rule {number} has no test with {mode} replies" for mode in sorted(missing))
    for words in [f"cve {number.replace('-', ' ')}" for number in DEFECTS] + list(DEFECTS_WITHOUT_A_NUMBER):
        if not any(re.search(rf"\b{words}\b", name) for name in names):
            yield f"'{words}' has no test"


_LISTED = "".join(f"{number}. It holds.\n" for number in RULES_OF_THE_PROTOCOL)


@rule(breaks=[{}, {"protocol/rules.md": _LISTED.replace("7. ", "8. ", 1)}, {"protocol/rules.md": _LISTED + "39. And this.\n"}],
      keeps=[{"protocol/rules.md": "# Rules\n\n" + _LISTED}])
def the_rules_that_tests_are_named_after_are_listed(tree):
    page = tree / "protocol/rules.md"
    listed = re.findall(r"(?m)^(\d+)\. ", page.read_text(encoding="utf-8")) if page.exists() else []
    if listed != [str(number) for number in RULES_OF_THE_PROTOCOL]:
        yield f"protocol/rules.md lists {', '.join(listed) or 'nothing'}"


def promises(tree):
    """(promise, names of tests) of each row of the table."""
    page = tree / "storage/README.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    section = re.search(r"(?ms)^## What we promise$(.*?)(?=^## |\Z)", text)
    for line in section.group(1).splitlines() if section else ():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 2 and not set(cells[0]) <= set("-: ") and cells[1] != "Held by":
            yield cells[0], re.findall(r"`([^`]+)`", cells[1])


def exact_names_of_tests(tree):
    """As they stand in the sources: of unit tests, integration tests, scenarios of the guest, and what CMake adds."""
    for path in files(tree, "tests"):
        text = text_of(tree, path) if path.suffix in (".cpp", ".py", ".txt") else ""
        pattern = {".cpp": r'TEST_CASE\(\s*"([^"]*)"', ".py": r"(?m)^    def ([a-z]\w*)\(self\)",
                   ".txt": r'add_test\(NAME "[^":$]*: ([^"]*)"'}.get(path.suffix, "(?!)")
        yield from re.findall(pattern, text)
        if path.match("tests/kernel/scenarios/*.sh"):
            yield re.sub(r"^\d+_", "", path.stem)


_PROMISE = "# A\n\n## What we promise\n\n| Promise | Held by |\n|---|---|\n"


@rule(breaks=[{"storage/README.md": "# A\n"}, {"storage/README.md": _PROMISE},
              {"storage/README.md": _PROMISE + "| It holds | `it_holds` |\n"},
              {"storage/README.md": _PROMISE + "| It holds | tests |\n"},
              {"storage/README.md": _PROMISE + "| It holds | `it_holds`, `b` |\n", "tests/a_test.cpp": 'TEST_CASE("it_holds") {'}],
      keeps=[{"storage/README.md": _PROMISE + "| It holds | `rule 1: it_holds`, `b`, `c`, `d` |\n\n## B\n\n| `x` | `y` |\n",
              "tests/a_test.cpp": 'TEST_CASE("rule 1: it_holds", "[x]") {', "tests/b_test.py": "    def b(self):\n",
              "tests/kernel/scenarios/07_c.sh": "", "tests/soak/CMakeLists.txt": 'add_test(NAME "soak: d"\n'}])
def each_promise_names_tests_that_exist(tree):
    rows, known = list(promises(tree)), set(exact_names_of_tests(tree))
    if not rows:
        yield "storage/README.md: no table under 'What we promise'"
    for promise, names in rows:
        if not names:
            yield f"storage/README.md: no test holds '{promise}'"
        yield from (f"storage/README.md: there is no test '{name}'" for name in names if name not in known)


# --- The program ------------------------------------------------------------------------------------------------

def complaints(name, tree):
    return list(RULES[name][0](Path(tree)))


def write_tree(root, sample):
    for path, content in sample.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")


def self_test(name):
    _, breaks, keeps = RULES[name]
    failures = 0
    for sample, must_complain in [(sample, True) for sample in breaks] + [(sample, False) for sample in keeps]:
        with tempfile.TemporaryDirectory() as folder:
            write_tree(Path(folder), sample)
            found = complaints(name, folder)
        if bool(found) != must_complain:
            failures += 1
            print(f"{'not seen' if must_complain else 'wrongly seen'}: {sample!r} {found}")
    if not breaks:
        failures += 1
        print("no sample that breaks the rule")
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--list"]:
        print("\n".join(RULES))
        return 0
    try:
        if len(arguments) == 2 and arguments[0] == "--self-test" and arguments[1] in RULES:
            return self_test(arguments[1])
        if len(arguments) == 2 and arguments[0] in RULES:
            found = complaints(*arguments)
            print("\n".join(found))
            return 1 if found else 0
    except Skip as reason:
        print(reason)
        return SKIPPED
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
