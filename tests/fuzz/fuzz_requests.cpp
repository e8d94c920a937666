// Any 28 bytes are a request, or are not; what validate() lets through keeps within what storage is promised.
#include <vector>

#include "protocol/requests.hpp"
#include "tests/fuzz/require.hpp"

using namespace aionbd::protocol;

static void check(const request& asked, const terms& agreed) {
  const export_info& chosen = *agreed.chosen;
  const error verdict = validate(asked, agreed);
  require(to_string(verdict) != "unknown" && (asked.what == command::write || payload_length(asked) == 0));
  if (verdict != error::none || asked.what == command::disc || asked.what == command::flush) return;
  require(asked.offset <= chosen.size && asked.length <= chosen.size - asked.offset);
  if (asked.what == command::read || asked.what == command::write)
    require(asked.length <= request_payload_max);
  const bool only_looks = asked.what == command::read || asked.what == command::cache;
  require((chosen.flags & transmission_flag::read_only) == 0 || only_looks);
  require(!agreed.block_sizes_requested || (asked.offset | asked.length) % chosen.block_size_min == 0);
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, std::size_t length) {
  auto left = std::as_bytes(std::span(bytes, length));
  for (; left.size() >= request_size; left = left.subspan(request_size)) {
    const std::vector<std::byte> wire(left.begin(), left.begin() + request_size);
    const auto asked = decode_request(std::span(wire).first<request_size>());
    if (!asked) return 0;
    std::vector<std::byte> again(request_size);
    encode_request(std::span(again).first<request_size>(), *asked);
    require(again == wire);
    for (const unsigned flags : {0x0000U, 0x0002U, 0xfffdU, 0xffffU}) {  // 2 is READ_ONLY.
      const export_info offered{"", "", 1U << 30U, static_cast<std::uint16_t>(flags), 512};
      for (const bool sizes : {false, true}) check(*asked, {&offered, false, sizes});
    }
  }
  return 0;
}
