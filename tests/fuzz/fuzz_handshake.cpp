// A client that says anything: the handshake keeps its contract, and how the bytes are cut does not matter.
#include <algorithm>

#include "protocol/handshake.hpp"
#include "tests/fuzz/require.hpp"

using namespace aionbd::protocol;

static const std::vector<export_info> exports = {{"disk", "A disk", 1U << 20U}, {"", "", 0}};

// What the server says to these bytes, received in pieces of this length, and how it ends.
static auto answer(std::span<const std::byte> said, std::size_t piece, bool all, handshake::action& next) {
  handshake under_test(exports, {16, 256, 4096, 1024, 8}, {all, all, all});
  std::vector<std::byte> output;
  for (std::size_t fed = 0, consumed = 0;;) {
    const auto given = said.subspan(consumed, fed - consumed);
    next = under_test.resume(std::vector<std::byte>(given.begin(), given.end()));
    require(next.consumed <= given.size() && under_test.output().size() <= 8192);
    output.insert(output.end(), under_test.output().begin(), under_test.output().end());
    next.consumed = consumed += next.consumed;
    const terms& agreed = under_test.agreed();
    require(next.what != handshake::step::enter_transmission || agreed.chosen != nullptr);
    require(agreed.replies == reply_mode::simple ? !agreed.allocation_selected : all);
    if (next.what == handshake::step::send) continue;
    const bool hungry = next.what == handshake::step::need_bytes;
    require(!hungry || (consumed == fed && under_test.output().empty()));
    if (!hungry || fed == said.size()) return output;
    fed += std::min(piece, said.size() - fed);
  }
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, std::size_t length) {
  const auto said = std::as_bytes(std::span(bytes, length));
  for (const bool all : {false, true}) {
    handshake::action whole, cut;
    require(answer(said, length, all, whole) == answer(said, 1, all, cut));
    require(whole.what == cut.what && whole.consumed == cut.consumed && whole.why == cut.why);
  }
  return 0;
}
