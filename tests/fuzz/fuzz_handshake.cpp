// A client that says anything: the contract is kept however its bytes are cut, but never across a STARTTLS.
#include "protocol/error.hpp"
#include "protocol/handshake.hpp"
#include "tests/fuzz/require.hpp"
using namespace aionbd::protocol;
using step = handshake::step;
static const std::vector<export_info> exports = {{"disk", "A disk", 1U << 20U}, {"", "", 0}};
static std::vector<std::byte> answer(std::span<const std::byte> said, std::size_t piece, unsigned kind,
                                     handshake::action& next, std::size_t tls_at = 0) {
  const handshake_offers offers{kind > 2, kind > 2, kind > 2, static_cast<tls_policy>(kind % 3)};
  handshake under_test(exports, {16, 256, 4096, 1024, 8}, offers);
  std::vector<std::byte> output;
  for (std::size_t fed = 0, consumed = 0, upgrades = 0;;) {
    const auto given = said.subspan(consumed, fed - consumed);
    next = under_test.resume(std::vector<std::byte>(given.begin(), given.end()));
    require(next.consumed <= given.size() && under_test.output().size() <= 8192);
    output.insert(output.end(), under_test.output().begin(), under_test.output().end());
    next.consumed = consumed += next.consumed;
    if (next.why == protocol_errc::bytes_ahead_of_tls) return answer(said, piece, kind, next, consumed);
    const bool idle = consumed == fed, open = offers.tls != tls_policy::required || upgrades > 0;
    const auto [chosen, zeroes, sizes, replies, allocation] = under_test.agreed();
    require(next.what != step::enter_transmission || (chosen != nullptr && open));
    require(replies == reply_mode::simple ? !allocation : offers.metadata && open);
    if (next.what == step::start_tls) require(idle && offers.tls != tls_policy::off && ++upgrades == 1);
    if (next.what == step::send || next.what == step::start_tls) continue;
    require(next.what != step::need_bytes || (idle && under_test.output().empty()));
    if (next.what != step::need_bytes || fed == said.size()) return output;
    fed = std::min(fed + piece, fed < tls_at ? tls_at : said.size());
  }
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, std::size_t length) {
  const auto said = std::as_bytes(std::span(bytes, length));
  for (unsigned kind = 0; kind < 6; ++kind) {
    handshake::action whole, cut;
    require(answer(said, length, kind, whole) == answer(said, 1, kind, cut));
    require(whole.what == cut.what && whole.consumed == cut.consumed && whole.why == cut.why);
  }
  return 0;
}
