// Replies of the transmission phase: today the simple reply, a fixed header that a READ's data follows.
// Nothing here knows buffers or sockets; the caller places the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "protocol/constants.hpp"

namespace aionbd::protocol {

inline constexpr std::size_t simple_reply_size = 16;

struct simple_reply {
  error result = error::none;
  std::uint64_t cookie = 0;
};

// A READ's data follows only if the error is none: an error is always the whole reply ("Simple reply
// message").
void encode_simple_reply(std::span<std::byte, simple_reply_size>, error, std::uint64_t cookie) noexcept;

// For clients, which is to say for tests: nullopt means that the magic is wrong.
[[nodiscard]] std::optional<simple_reply> decode_simple_reply(
    std::span<const std::byte, simple_reply_size>) noexcept;

}  // namespace aionbd::protocol
