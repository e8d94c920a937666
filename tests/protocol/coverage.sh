#!/bin/bash
# How much of protocol/ its unit tests reach, file by file; fails below the goals. Needs clang and llvm-cov.
# Asserts are left out: their other branch is ours never to take. What was not reached:
#   tests/protocol/coverage.sh --show
set -euo pipefail

readonly lines_min=98 branches_min=90
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
readonly build=build/coverage

# Debian's clang of version N comes with llvm-cov-N; elsewhere they have no number.
version=$(clang++ -dumpversion)
suffix=-${version%%.*}
command -v "llvm-cov$suffix" >/dev/null || suffix=

cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_CXX_FLAGS="-DNDEBUG -fprofile-instr-generate -fcoverage-mapping" >/dev/null
cmake --build "$build" --target protocol_tests

readonly tests=$build/tests/protocol/protocol_tests
LLVM_PROFILE_FILE=$build/protocol.profraw "$tests"
"llvm-profdata$suffix" merge -sparse "$build/protocol.profraw" -o "$build/protocol.profdata"

if [[ ${1-} == --show ]]; then
  exec "llvm-cov$suffix" show "$tests" -instr-profile="$build/protocol.profdata" -show-branches=count protocol/
fi
"llvm-cov$suffix" report "$tests" -instr-profile="$build/protocol.profdata" -show-region-summary=false protocol/
"llvm-cov$suffix" export -summary-only "$tests" -instr-profile="$build/protocol.profdata" protocol/ |
  /usr/bin/python3 -c '
import json, sys
goals = {"lines": float(sys.argv[1]), "branches": float(sys.argv[2])}
totals = json.load(sys.stdin)["data"][0]["totals"]
short = False
for what, goal in goals.items():
    percent = totals[what]["percent"]
    short = short or percent < goal
    print(f"{what}: {percent:.2f} %, the goal is {goal:g} %")
sys.exit(1 if short else 0)' "$lines_min" "$branches_min"
