// The numbers of NBD: magics, enumerations, flag bits and the limits we hold everyone to.
// Names are the specification's, in lower case and without their prefix (NBD_OPT_GO is option::go). Values
// only: nothing here decides anything. A change to this file is also a change to protocol/README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace aionbd::protocol {

// "NBDMAGIC" and "IHAVEOPT": the server's greeting, and the start of every option.
inline constexpr std::uint64_t greeting_magic = 0x4e42444d41474943;
inline constexpr std::uint64_t option_magic = 0x49484156454f5054;
inline constexpr std::uint64_t option_reply_magic = 0x0003e889045565a9;
inline constexpr std::uint32_t request_magic = 0x25609513;
inline constexpr std::uint32_t extended_request_magic = 0x21e41c71;
inline constexpr std::uint32_t simple_reply_magic = 0x67446698;
inline constexpr std::uint32_t structured_reply_magic = 0x668e33ef;
inline constexpr std::uint32_t extended_reply_magic = 0x6e8a278c;

enum class option : std::uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  peek_export = 4,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

// Bit 31 marks an error; every error may carry a sentence for people.
enum class option_reply : std::uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  err_unsup = 0x80000001,
  err_policy = 0x80000002,
  err_invalid = 0x80000003,
  err_platform = 0x80000004,
  err_tls_reqd = 0x80000005,
  err_unknown = 0x80000006,
  err_shutdown = 0x80000007,
  err_block_size_reqd = 0x80000008,
  err_too_big = 0x80000009,
  err_ext_header_reqd = 0x8000000a,
};

enum class info : std::uint16_t {
  export_ = 0,  // "export" itself is a keyword.
  name = 1,
  description = 2,
  block_size = 3,
};

enum class command : std::uint16_t {
  read = 0,
  write = 1,
  disc = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
  resize = 8,
};

// What one piece of a structured or extended reply is; bit 15 marks an error.
enum class chunk : std::uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  block_status_ext = 6,
  error = 0x8001,
  error_offset = 0x8002,
};

// The only values an error field may have; they are errno's on Linux, but are defined by the specification.
enum class error : std::uint32_t {
  none = 0,
  eperm = 1,
  eio = 5,
  enomem = 12,
  einval = 22,
  enospc = 28,
  eoverflow = 75,
  enotsup = 95,
  eshutdown = 108,
};

namespace handshake_flag {
inline constexpr std::uint16_t fixed_newstyle = 1U << 0;
inline constexpr std::uint16_t no_zeroes = 1U << 1;
}  // namespace handshake_flag

namespace client_flag {
inline constexpr std::uint32_t fixed_newstyle = 1U << 0;
inline constexpr std::uint32_t no_zeroes = 1U << 1;
}  // namespace client_flag

namespace transmission_flag {
inline constexpr std::uint16_t has_flags = 1U << 0;
inline constexpr std::uint16_t read_only = 1U << 1;
inline constexpr std::uint16_t send_flush = 1U << 2;
inline constexpr std::uint16_t send_fua = 1U << 3;
inline constexpr std::uint16_t rotational = 1U << 4;
inline constexpr std::uint16_t send_trim = 1U << 5;
inline constexpr std::uint16_t send_write_zeroes = 1U << 6;
inline constexpr std::uint16_t send_df = 1U << 7;
inline constexpr std::uint16_t can_multi_conn = 1U << 8;
inline constexpr std::uint16_t send_resize = 1U << 9;
inline constexpr std::uint16_t send_cache = 1U << 10;
inline constexpr std::uint16_t send_fast_zero = 1U << 11;
inline constexpr std::uint16_t block_status_payload = 1U << 12;
}  // namespace transmission_flag

namespace command_flag {
inline constexpr std::uint16_t fua = 1U << 0;
inline constexpr std::uint16_t no_hole = 1U << 1;
inline constexpr std::uint16_t df = 1U << 2;
inline constexpr std::uint16_t req_one = 1U << 3;
inline constexpr std::uint16_t fast_zero = 1U << 4;
inline constexpr std::uint16_t payload_len = 1U << 5;
}  // namespace command_flag

namespace reply_flag {
inline constexpr std::uint16_t done = 1U << 0;
}  // namespace reply_flag

// What base:allocation says of an extent. Neither flag is always a safe answer.
namespace state_flag {
inline constexpr std::uint32_t hole = 1U << 0;
inline constexpr std::uint32_t zero = 1U << 1;
}  // namespace state_flag

// The one metadata context that is served. Its number is ours to choose; it is not 0, which stands in the
// answers to LIST_META_CONTEXT, so that a client that mixes them up is noticed.
inline constexpr std::string_view allocation_context = "base:allocation";
inline constexpr std::uint32_t allocation_context_id = 1;

// Every string of the protocol, in bytes ("Conventions"); names and texts for people alike.
inline constexpr std::size_t text_length_max = 4096;
inline constexpr std::size_t name_length_max = text_length_max;

// The longest data one READ or WRITE may carry ("Size constraints": 2^25 is what a client may rely on
// unasked).
inline constexpr std::uint32_t request_payload_max = 32U << 20;

// A refused WRITE is read and thrown away up to this length, so that the connection survives; past it, it is
// dropped. With extended headers request_payload_max stands in its place ("Request message").
inline constexpr std::uint32_t payload_drain_max = 64U << 20;

// The largest minimum that may be advertised ("Size constraints"); every one is a power of two.
inline constexpr std::uint32_t block_size_min_max = 65536;

// Extents in one answer to BLOCK_STATUS, which is then shorter than what was asked; the client asks on from
// there. "Structured reply types" recommends at most 2^20.
inline constexpr std::size_t status_extents_max = 16384;

// The reserved zeroes after the answer to EXPORT_NAME, for a client that did not agree to leave them out.
inline constexpr std::size_t export_name_zeroes = 124;

// Names for logs. A value that has none is "unknown"; the caller prints its number beside it.
[[nodiscard]] std::string_view to_string(option) noexcept;
[[nodiscard]] std::string_view to_string(option_reply) noexcept;
[[nodiscard]] std::string_view to_string(info) noexcept;
[[nodiscard]] std::string_view to_string(command) noexcept;
[[nodiscard]] std::string_view to_string(chunk) noexcept;
[[nodiscard]] std::string_view to_string(error) noexcept;

}  // namespace aionbd::protocol
