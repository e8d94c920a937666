// Any header is a request, or is not; what validate() lets through keeps within what storage is promised.
#include "protocol/requests.hpp"
#include "tests/fuzz/require.hpp"

using namespace aionbd::protocol;

static void check(request asked, const terms& agreed, std::span<const std::byte> behind) {
  const export_info& chosen = *agreed.chosen;
  error verdict = validate(asked, agreed);
  if (verdict == error::none && has_block_status_payload(asked, agreed.replies)) {
    require(payload_length(asked, agreed.replies) == block_status_payload_size);
    if (behind.size() < block_status_payload_size) return;
    verdict = take_block_status_payload(asked, behind.first<block_status_payload_size>(), agreed);
  }
  require(sentence_for(verdict, asked, agreed).empty() == (verdict == error::none));
  if (verdict != error::none || asked.what == command::disc || asked.what == command::flush) return;
  require(asked.offset <= chosen.size && asked.length <= chosen.size - asked.offset);
  const bool writes = asked.what == command::write;
  const bool changes = writes || asked.what == command::trim || asked.what == command::write_zeroes;
  require(asked.length <= request_payload_max || (!writes && asked.what != command::read));
  require(payload_length(asked, agreed.replies) == (writes ? asked.length : 0));
  require((chosen.flags & transmission_flag::read_only) == 0 || !changes);
  require(!agreed.block_sizes_requested || (asked.offset | asked.length) % chosen.block_size_min == 0);
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, std::size_t length) {
  for (unsigned bits = 0; bits < 24; ++bits) {
    const auto mode = static_cast<reply_mode>(bits % 3);
    const std::uint16_t flags = bits / 3 % 2 == 0 ? 0xffff : 0xfffd;  // 2 is READ_ONLY.
    const export_info offered{"", "", 1ULL << 40U, flags, 512};
    const terms agreed{&offered, false, bits / 6 % 2 == 0, mode, bits / 12 == 0};
    auto left = std::as_bytes(std::span(bytes, length));
    while (left.size() >= request_header_size(mode)) {
      const auto asked = decode_request(left.first(request_header_size(mode)), mode);
      left = left.subspan(request_header_size(mode));
      if (asked) check(*asked, agreed, left);
    }
  }
  return 0;
}
