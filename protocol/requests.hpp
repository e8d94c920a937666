// Requests of the transmission phase: decoded once, validated once, before any buffer exists.
// Below validate() nobody checks a range or a flag again. Values only: no I/O, no memory, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>

#include "protocol/constants.hpp"
#include "protocol/terms.hpp"

namespace aionbd::protocol {

struct request {
  command what = command::read;
  std::uint16_t flags = 0;
  std::uint64_t cookie = 0;  // Opaque: copied into the reply, and the key of nothing; clients may repeat it.
  std::uint64_t offset = 0;
  // What the request is about, and of a WRITE also the payload's. Only with PAYLOAD_LEN on another command it
  // is the payload's alone. 32 bits on the wire, 64 with extended headers.
  std::uint64_t length = 0;

  bool operator==(const request&) const = default;
};

inline constexpr std::size_t request_size = 28;
inline constexpr std::size_t extended_request_size = 32;

[[nodiscard]] constexpr std::size_t request_header_size(reply_mode mode) noexcept {
  return mode == reply_mode::extended ? extended_request_size : request_size;
}

// nullopt means that the magic is wrong: the stream is out of step, so the connection cannot go on.
// A command that we do not know keeps its number; validate() refuses it and the connection goes on.
[[nodiscard]] std::optional<request> decode_request(std::span<const std::byte, request_size>) noexcept;
// `header` begins with request_header_size(mode) bytes of a request; what follows them is not looked at.
[[nodiscard]] std::optional<request> decode_request(std::span<const std::byte> header, reply_mode) noexcept;

// For clients, which is to say for tests. The length must fit in 32 bits, unless headers are extended.
void encode_request(std::span<std::byte, request_size>, const request&) noexcept;
void encode_request(std::span<std::byte> header, const request&, reply_mode) noexcept;

// Bytes that follow the header, whether or not the request is valid: WRITE's, whatever its flags; with
// extended headers, also those that PAYLOAD_LEN announces, on any command.
[[nodiscard]] std::uint64_t payload_length(const request&, reply_mode = reply_mode::simple) noexcept;

// A payload so long that it is not even read and thrown away: drop the connection,
// protocol_errc::payload_too_long.
[[nodiscard]] bool payload_is_past_all_limits(const request&, reply_mode = reply_mode::simple) noexcept;

// error::none: serve it. Anything else: throw away payload_length() bytes, then send this error and go on.
// `agreed` must have a chosen export. DISC is always valid: there is no reply that could refuse it.
// A valid BLOCK_STATUS may still have a payload, which is to be judged when it is there:
// take_block_status_payload().
[[nodiscard]] error validate(const request&, const terms& agreed) noexcept;

// What a BLOCK_STATUS with PAYLOAD_LEN carries behind its header. Only one context can be selected and none
// may be named twice, so all other sizes are invalid.
struct block_status_payload {
  std::uint64_t effect_length = 0;
  std::uint32_t context_id = 0;
};
inline constexpr std::size_t block_status_payload_size = 12;
void encode(std::span<std::byte, block_status_payload_size>, const block_status_payload&) noexcept;
[[nodiscard]] block_status_payload decode_block_status_payload(
    std::span<const std::byte, block_status_payload_size>) noexcept;

// True for a request that waits for take_block_status_payload(): then its payload_length() is exactly
// block_status_payload_size if it is valid.
[[nodiscard]] bool has_block_status_payload(const request&, reply_mode) noexcept;

// Makes `asked`, which was valid so far, the request without a payload that its payload says it is, and
// judges that one like validate().
[[nodiscard]] error take_block_status_payload(request& asked,
                                              std::span<const std::byte, block_status_payload_size>,
                                              const terms& agreed) noexcept;

// Why a request failed, as one sentence for people: the objection of validate(), if `result` is its verdict,
// and otherwise what the error says. Valid forever. Empty for error::none.
[[nodiscard]] std::string_view sentence_for(error result, const request&, const terms& agreed) noexcept;

// The error to send when serving `failed` ended in `why`. It is to_nbd_error(), less what the specification
// allows for other requests only: ENOTSUP belongs to WRITE_ZEROES with FAST_ZERO; elsewhere the client would
// take it for a promise. A FLUSH never fails with ENOSPC, which is told as EIO.
[[nodiscard]] error error_for(const request& failed, const std::error_code& why) noexcept;

}  // namespace aionbd::protocol
