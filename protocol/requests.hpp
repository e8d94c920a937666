// Requests of the transmission phase: decoded once, validated once, before any buffer exists.
// Below validate() nobody checks a range or a flag again. Values only: no I/O, no memory, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <system_error>

#include "protocol/constants.hpp"
#include "protocol/terms.hpp"

namespace aionbd::protocol {

struct request {
  command what = command::read;
  std::uint16_t flags = 0;
  std::uint64_t cookie = 0;  // Opaque: copied into the reply, and the key of nothing; clients may repeat it.
  std::uint64_t offset = 0;
  std::uint64_t length = 0;  // 32 bits on the wire today; extended headers will bring 64.
};

inline constexpr std::size_t request_size = 28;

// nullopt means that the magic is wrong: the stream is out of step, so the connection cannot go on.
// A command that we do not know keeps its number; validate() refuses it and the connection goes on.
[[nodiscard]] std::optional<request> decode_request(std::span<const std::byte, request_size>) noexcept;

// For clients, which is to say for tests. The length must fit in 32 bits.
void encode_request(std::span<std::byte, request_size>, const request&) noexcept;

// Bytes that follow the header, whether or not the request is valid: only WRITE has any.
[[nodiscard]] std::uint64_t payload_length(const request&) noexcept;

// A payload so long that it is not even read and thrown away: drop the connection,
// protocol_errc::payload_too_long.
[[nodiscard]] bool payload_is_past_all_limits(const request&) noexcept;

// error::none: serve it. Anything else: throw away payload_length() bytes, then send this error and go on.
// `agreed` must have a chosen export. DISC is always valid: there is no reply that could refuse it.
[[nodiscard]] error validate(const request&, const terms& agreed) noexcept;

// The error to send when serving `failed` ended in `why`. It is to_nbd_error(), less what the specification
// allows for other requests only: ENOTSUP belongs to WRITE_ZEROES with FAST_ZERO; elsewhere the client would
// take it for a promise.
[[nodiscard]] error error_for(const request& failed, const std::error_code& why) noexcept;

}  // namespace aionbd::protocol
