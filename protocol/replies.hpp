// Replies of the transmission phase: simple replies, and the chunks of structured and extended ones.
// Nothing here knows buffers or sockets: heads are written to the caller's memory, and the caller places the
// data and the texts behind them. No allocation, any thread. Answers to BLOCK_STATUS: block_status.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "protocol/constants.hpp"
#include "protocol/requests.hpp"
#include "protocol/terms.hpp"

namespace aionbd::protocol {

inline constexpr std::size_t simple_reply_size = 16;
inline constexpr std::size_t structured_chunk_header_size = 20;
inline constexpr std::size_t extended_chunk_header_size = 32;

// Room for the head of any reply: an extended header, an error, the length of its text, and an offset.
inline constexpr std::size_t reply_header_max = extended_chunk_header_size + 4 + 2 + 8;

struct simple_reply {
  error result = error::none;
  std::uint64_t cookie = 0;
};

// A READ's data follows only if the error is none: an error is always the whole reply ("Simple reply
// message").
void encode_simple_reply(std::span<std::byte, simple_reply_size>, error, std::uint64_t cookie) noexcept;

// Each of the following writes to the beginning of `to` and returns how many bytes that took. In extended
// mode every reply carries the request's offset. `done` marks the last chunk of the reply: never set it on
// data that an error may still follow, and set it exactly once ("Structured reply flags").

// Success without data, also that of a READ of no length; or the end of a READ whose chunks are all out.
[[nodiscard]] std::size_t encode_done(std::span<std::byte, reply_header_max> to, reply_mode,
                                      const request& answered) noexcept;

// What stands before `length` bytes of a READ's data, which were read at `offset` and lie in the request. In
// simple mode they are all of it. No bytes have no chunk, and come out as encode_done().
[[nodiscard]] std::size_t encode_data_header(std::span<std::byte, reply_header_max> to, reply_mode,
                                             const request& answered, std::uint64_t offset,
                                             std::uint64_t length, bool done) noexcept;

// A whole chunk: `length` bytes of a READ, at least one, are zeroes. Not in simple mode; with DF only when it
// is the whole of the READ.
[[nodiscard]] std::size_t encode_hole(std::span<std::byte, reply_header_max> to, reply_mode,
                                      const request& answered, std::uint64_t offset, std::uint64_t length,
                                      bool done) noexcept;

// An error reply is sent in three pieces, of which the later ones may be empty.
struct error_reply {
  std::size_t header_length = 0;  // The first bytes of `to`,
  std::string_view text;          // then these, which are the caller's,
  std::size_t tail_length = 0;    // then the bytes of `to` that come after the first.
};

// The last chunk of a failed request, with a text for people that is cut at text_length_max; in simple mode a
// simple reply without one. `result` is not none. `failed_at` is told (ERROR_OFFSET) if it lies in the
// request and the command allows it, and else left out.
[[nodiscard]] error_reply encode_error(std::span<std::byte, reply_header_max> to, reply_mode,
                                       const request& failed, error result, std::string_view text = {},
                                       std::optional<std::uint64_t> failed_at = {}) noexcept;

// What stands before every chunk's payload.
struct chunk_header {
  std::uint16_t flags = 0;
  chunk what = chunk::none;
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;  // The request's; extended mode only.
  std::uint64_t length = 0;  // Of the payload; 32 bits in structured mode.
};

[[nodiscard]] constexpr std::size_t chunk_header_size(reply_mode mode) noexcept {
  return mode == reply_mode::extended ? extended_chunk_header_size : structured_chunk_header_size;
}

// `to` has at least chunk_header_size(mode) bytes; not in simple mode.
void encode_chunk_header(std::span<std::byte> to, reply_mode, const chunk_header&) noexcept;

// For clients, which is to say for tests: nullopt means that the magic is wrong or bytes are missing.
[[nodiscard]] std::optional<simple_reply> decode_simple_reply(
    std::span<const std::byte, simple_reply_size>) noexcept;
[[nodiscard]] std::optional<chunk_header> decode_chunk_header(std::span<const std::byte> from,
                                                              reply_mode) noexcept;

}  // namespace aionbd::protocol
