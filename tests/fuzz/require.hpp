// An invariant of a fuzz target. Not an assert: it holds in every build, and ends in the signal that fuzzers
// look for.
#pragma once

#include <cstdlib>

inline void require(bool holds) {
  if (!holds) std::abort();
}
