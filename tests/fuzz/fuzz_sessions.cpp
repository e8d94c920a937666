// A client that says anything, from its first byte to its last, to a server whose disk completes, stops short
// and fails as the input has it: the server keeps the protocol, and gives everything back.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>

#include "tests/fuzz/require.hpp"
#include "tests/simulation/played_session.hpp"

using namespace aionbd::tests;

// One byte for the stage, one for how many decisions follow, the decisions, and then what the client says.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, std::size_t length) {
  spdlog::set_level(spdlog::level::off);
  if (length < 2) return 0;
  const auto behind = std::as_bytes(std::span(bytes, length)).subspan(2);
  const std::size_t decisions = std::min<std::size_t>(bytes[1], behind.size());
  played_session session(stage{bytes[0]}, behind.first(decisions), behind.subspan(decisions));
  const std::string complaint = session.play();
  if (!complaint.empty()) std::fprintf(stderr, "complaint: %s\n", complaint.c_str());
  require(complaint.empty());
  return 0;
}
