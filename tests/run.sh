#!/bin/bash
# Builds every preset and runs every test in one CTest run, whose summary is the last thing printed.
set -euo pipefail
# Nothing here reads from a terminal, and a closed standard input must not become some file's descriptor 0.
exec </dev/null

usage() {
  cat <<'TEXT'
Usage: run.sh [--quick | --preset NAME] [--tidy]

Installs the packages the tests need, builds, and runs the tests through CTest. What runs where:

  dev     g++: every test, the guest with the kernel's client included, and every header compiled alone
  clang   unit tests, fuzzers
  asan    AddressSanitizer and UndefinedBehaviorSanitizer: unit and integration tests
  tsan    ThreadSanitizer: unit tests of storage and server, integration tests labelled 'loops'

  --quick        only the unit tests of dev
  --preset NAME  only this preset
  --tidy         clang-tidy over protocol, storage and server as well (takes minutes)
TEXT
}

presets=(dev clang asan tsan)
quick=
tidy=
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --quick) quick=1; presets=(dev) ;;
    --preset)
      case ${2-} in
        dev | clang | asan | tsan) presets=("$2"); shift ;;
        *) echo "run.sh: --preset takes dev, clang, asan or tsan" >&2; exit 2 ;;
      esac ;;
    --tidy) tidy=1 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/debian-packages.sh
source packaging/debian-packages.sh

step() { printf '\n==> %s (%d s)\n' "$*" "$SECONDS"; }

# The sanitizers of g++ 12 and clang 14 cannot live with the 32 bits of address randomisation that newer kernels
# use; they die at start, at random. setarch switches it off for one program. A container may forbid that.
fixed_addresses=()
if setarch --addr-no-randomize true 2>/dev/null; then
  fixed_addresses=(setarch --addr-no-randomize)
fi

build_preset() {
  local preset=$1 runner=()
  if [[ $preset == asan || $preset == tsan ]]; then
    runner=("${fixed_addresses[@]}")  # CTest's list of unit tests is made by running them during the build.
  fi
  step "Build preset $preset"
  cmake --preset "$preset"
  "${runner[@]}" cmake --build --preset "$preset"
  if [[ $preset == dev && -z $quick ]]; then
    step "Compile every header alone"
    cmake --build --preset dev --target all_verify_interface_header_sets
  fi
}

run_tidy() {
  step "clang-tidy"
  cmake --preset clang >/dev/null
  find protocol storage server -name '*.cpp' -print0 |
    xargs -0 -n 1 -P "$(nproc)" clang-tidy -p build/clang --quiet --warnings-as-errors='*'
}

# Writes build/all/CTestTestfile.cmake: the chosen tests of every chosen preset, each under its preset's name, so
# that one ctest runs them and one summary counts them.
write_suite() {
  mkdir -p build/all
  FIXED_ADDRESSES="${fixed_addresses[*]}" QUICK=$quick /usr/bin/python3 - "${presets[@]}" <<'PYTHON'
import json, os, re, subprocess, sys

def is_chosen(preset, name, labels):
    if os.environ["QUICK"]:
        return "unit" in labels
    if preset == "dev":
        return True
    if preset == "clang":
        return bool(labels & {"unit", "fuzz"})
    if preset == "asan":
        return bool(labels & {"unit", "integration"})
    return "loops" in labels or ("unit" in labels and not name.startswith("protocol:"))

def quoted(value):  # As one argument of CMake's language, whatever is in it.
    text = ";".join(value) if isinstance(value, list) else str(value)
    fence = "=" * (1 + max(map(len, re.findall("=+", text)), default=0))
    return f"[{fence}[{text}]{fence}]"

lines, counts = [], {}
for preset in sys.argv[1:]:
    listing = subprocess.run(["ctest", "--test-dir", f"build/{preset}", "--show-only=json-v1"],
                             check=True, stdout=subprocess.PIPE).stdout
    prefix = os.environ["FIXED_ADDRESSES"].split() if preset in ("asan", "tsan") else []
    tests = [(test, {entry["name"]: entry["value"] for entry in test.get("properties", [])})
             for test in json.loads(listing)["tests"]]
    chosen = {test["name"] for test, properties in tests
              if is_chosen(preset, test["name"], set(properties.get("LABELS", [])))}
    fixtures = {fixture for test, properties in tests if test["name"] in chosen
                for fixture in properties.get("FIXTURES_REQUIRED", [])}
    for test, properties in tests:
        served = properties.get("FIXTURES_SETUP", []) + properties.get("FIXTURES_CLEANUP", [])
        if test["name"] not in chosen and not fixtures.intersection(served):
            continue
        if "command" not in test:
            sys.exit(f"{preset}: the program of test '{test['name']}' was not built")
        properties["LABELS"] = properties.get("LABELS", []) + [preset]
        for name in ("FIXTURES_SETUP", "FIXTURES_REQUIRED", "FIXTURES_CLEANUP", "DEPENDS"):
            if name in properties:
                properties[name] = [f"{preset}: {each}" for each in properties[name]]
        name = quoted(f"{preset}: {test['name']}")
        lines.append(f"add_test({name} {' '.join(map(quoted, prefix + test['command']))})")
        settings = " ".join(f"{key} {quoted(value)}" for key, value in properties.items())
        lines.append(f"set_tests_properties({name} PROPERTIES {settings})")
        counts[preset] = counts.get(preset, 0) + 1
with open("build/all/CTestTestfile.cmake", "w") as suite:
    suite.write("\n".join(lines) + "\n")
print(", ".join(f"{preset} {counts.get(preset, 0)}" for preset in sys.argv[1:]), "tests")
if not all(counts.get(preset) for preset in sys.argv[1:]):
    sys.exit("a preset without any test: something is wrong with the build")
PYTHON
}

step "Packages"
install_missing_packages "${build_packages[@]}" "${test_packages[@]}"
if [[ -z $quick ]]; then
  step "Clients of Debian 13"
  # Not everybody's apt reaches it. The tests that need it are then skipped, which the summary tells.
  tests/integration/debian13.sh build/debian13 ||
    echo "Their tests will be skipped: 'integration: newer_clients'."
fi
for preset in "${presets[@]}"; do build_preset "$preset"; done
if [[ -n $tidy ]]; then run_tidy; fi

step "Collect the tests"
write_suite
echo "Run one again:  ctest --test-dir build/all --output-on-failure -R 'PART OF ITS NAME'"
echo "Full log:       $PWD/build/all/Testing/Temporary/LastTest.log"

step "Test"
exec ctest --test-dir build/all --output-on-failure --no-tests=error --parallel "$(nproc)"
