// A client that says anything: the handshake keeps its contract, and how the bytes are cut does not matter.
#include <algorithm>
#include <vector>

#include "protocol/handshake.hpp"
#include "tests/fuzz/require.hpp"

using namespace aionbd::protocol;

static const std::vector<export_info> exports = {{"disk", "A disk", 1U << 20U}, {"", "", 0}};

// Everything the server says to these bytes, received in pieces of this length, and how it ends.
static auto answer(std::span<const std::byte> said, std::size_t piece, handshake::action& next) {
  handshake under_test(exports, {.options_max = 16, .option_length_max = 256, .total_bytes_max = 4096});
  std::vector<std::byte> output;
  std::size_t fed = 0, consumed = 0;
  bool goes_on = true;
  while (goes_on) {
    const auto given = said.subspan(consumed, fed - consumed);
    next = under_test.resume(std::vector<std::byte>(given.begin(), given.end()));
    require(next.consumed <= given.size() && under_test.output().size() <= 8192);
    output.insert(output.end(), under_test.output().begin(), under_test.output().end());
    consumed += next.consumed;
    const bool hungry = next.what == handshake::step::need_bytes;
    require(!hungry || (consumed == fed && under_test.output().empty()));
    require(next.what != handshake::step::enter_transmission || under_test.agreed().chosen != nullptr);
    if (hungry) fed += std::min(piece, said.size() - fed);
    goes_on = next.what == handshake::step::send || (hungry && consumed < fed);
  }
  next.consumed = consumed;
  return output;
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, std::size_t length) {
  const auto said = std::as_bytes(std::span(bytes, length));
  handshake::action whole, cut;
  require(answer(said, length, whole) == answer(said, 1, cut));
  require(whole.what == cut.what && whole.consumed == cut.consumed && whole.why == cut.why);
  return 0;
}
