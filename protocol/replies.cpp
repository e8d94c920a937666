#include "protocol/replies.hpp"

#include "protocol/wire.hpp"

namespace aionbd::protocol {

void encode_simple_reply(std::span<std::byte, simple_reply_size> to, error result,
                         std::uint64_t cookie) noexcept {
  writer(to).number(simple_reply_magic).number(static_cast<std::uint32_t>(result)).number(cookie);
}

std::optional<simple_reply> decode_simple_reply(std::span<const std::byte, simple_reply_size> from) noexcept {
  reader in(from);
  if (in.number<std::uint32_t>() != simple_reply_magic) return std::nullopt;
  simple_reply result;
  result.result = static_cast<error>(in.number<std::uint32_t>());
  result.cookie = in.number<std::uint64_t>();
  return result;
}

}  // namespace aionbd::protocol
