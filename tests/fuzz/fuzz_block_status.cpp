// Whatever is asked for and whatever was found: the answer to BLOCK_STATUS keeps the rules of its extents.
#include "protocol/block_status.hpp"
#include "protocol/replies.hpp"
#include "protocol/wire.hpp"
#include "tests/fuzz/require.hpp"

using namespace aionbd::protocol;

static void check(const request& asked, const terms& agreed, std::span<const status_extent> found) {
  std::vector<std::byte> wire;
  append_block_status(wire, asked, agreed, 7, found);
  const bool wide = agreed.replies == reply_mode::extended;
  const auto header = decode_chunk_header(wire, agreed.replies).value();
  reader in(std::span<std::byte>(wire).subspan(chunk_header_size(agreed.replies)));
  require(header.flags == 1 && header.length == in.remaining() && in.number<std::uint32_t>() == 7);
  const std::size_t count = wide ? in.number<std::uint32_t>() : in.remaining() / 8;
  require(count > 0 && count <= status_extents_max && in.remaining() == count * (wide ? 16 : 8));
  const auto number = [&] { return wide ? in.number<std::uint64_t>() : in.number<std::uint32_t>(); };
  std::uint64_t total = 0, before = 99;
  while (in.remaining() > 0) {
    const std::uint64_t left = agreed.chosen->size - asked.offset - total;
    const std::uint64_t length = number(), flags = number();
    require(length > 0 && length <= left && flags != before && total < asked.length);
    total += length, before = flags;
  }
  require((asked.flags & command_flag::req_one) == 0 || (count == 1 && total <= asked.length));
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, std::size_t length) {
  reader in(std::as_bytes(std::span(bytes, length)));
  const export_info disk{"", "", in.number<std::uint64_t>(), 1, 1U << in.number<std::uint8_t>() % 17U};
  const terms agreed{&disk, false, in.number<std::uint8_t>() % 2 == 0, reply_mode(1 + length % 2), true};
  const std::uint16_t flags = in.number<std::uint8_t>() % 2 == 0 ? command_flag::req_one : std::uint16_t{0};
  const std::uint64_t at = in.number<std::uint64_t>();
  const request asked{command::block_status, flags, 1, at, in.number<std::uint64_t>()};
  std::vector<status_extent> found;
  while (in.remaining() > 0) found.push_back({in.number<std::uint64_t>(), in.number<std::uint8_t>() % 4U});
  if (validate(asked, agreed) == error::none) check(asked, agreed, found);
  return 0;
}
