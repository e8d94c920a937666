// The messages of the handshake: a struct, its size, encode and decode for each. What they mean is
// handshake.cpp's. Decoders return nullopt for what is not such a message; encoders write exactly their size.
// Messages of variable length are appended to the caller's output. Servers encode what clients decode and the
// other way round; tests do both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/constants.hpp"

namespace aionbd::protocol {

// "Newstyle negotiation": the server speaks first.
struct greeting {
  std::uint16_t flags = 0;
};
inline constexpr std::size_t greeting_size = 18;
void encode(std::span<std::byte, greeting_size>, const greeting&) noexcept;
[[nodiscard]] std::optional<greeting> decode_greeting(std::span<const std::byte, greeting_size>) noexcept;

struct client_flags {
  std::uint32_t flags = 0;
};
inline constexpr std::size_t client_flags_size = 4;
void encode(std::span<std::byte, client_flags_size>, const client_flags&) noexcept;
[[nodiscard]] client_flags decode_client_flags(std::span<const std::byte, client_flags_size>) noexcept;

// Starts every option; `length` bytes of data follow.
struct option_header {
  option what = option::export_name;
  std::uint32_t length = 0;
};
inline constexpr std::size_t option_header_size = 16;
void encode(std::span<std::byte, option_header_size>, const option_header&) noexcept;
[[nodiscard]] std::optional<option_header> decode_option_header(
    std::span<const std::byte, option_header_size>) noexcept;

// Starts every answer to an option, EXPORT_NAME's excepted; `length` bytes of data follow.
struct option_reply_header {
  option to = option::abort;
  option_reply what = option_reply::ack;
  std::uint32_t length = 0;
};
inline constexpr std::size_t option_reply_header_size = 20;
void encode(std::span<std::byte, option_reply_header_size>, const option_reply_header&) noexcept;
[[nodiscard]] std::optional<option_reply_header> decode_option_reply_header(
    std::span<const std::byte, option_reply_header_size>) noexcept;

// The whole answer to EXPORT_NAME, but for the reserved zeroes.
struct export_name_reply {
  std::uint64_t size = 0;
  std::uint16_t flags = 0;
};
inline constexpr std::size_t export_name_reply_size = 10;
void encode(std::span<std::byte, export_name_reply_size>, const export_name_reply&) noexcept;
[[nodiscard]] export_name_reply decode_export_name_reply(
    std::span<const std::byte, export_name_reply_size>) noexcept;

// The payloads of REP_INFO that have a fixed size, their type included.
struct info_export {
  std::uint64_t size = 0;
  std::uint16_t flags = 0;
};
inline constexpr std::size_t info_export_size = 12;
void encode(std::span<std::byte, info_export_size>, const info_export&) noexcept;
[[nodiscard]] std::optional<info_export> decode_info_export(
    std::span<const std::byte, info_export_size>) noexcept;

struct info_block_size {
  std::uint32_t minimum = 1;
  std::uint32_t preferred = 4096;
  std::uint32_t payload_max = request_payload_max;
};
inline constexpr std::size_t info_block_size_size = 14;
void encode(std::span<std::byte, info_block_size_size>, const info_block_size&) noexcept;
[[nodiscard]] std::optional<info_block_size> decode_info_block_size(
    std::span<const std::byte, info_block_size_size>) noexcept;

// The data of INFO and GO. Requests for information that we do not know are ignored, as the specification
// demands, and one that is repeated counts once.
struct export_query {
  std::string name;
  bool wants_name = false;
  bool wants_description = false;
  bool wants_block_size = false;
};
// 32 bits name length, the name, 16 bits count of information requests: what an empty query takes.
inline constexpr std::size_t export_query_size_min = 6;
void append(std::vector<std::byte>& to, const export_query&);
[[nodiscard]] std::optional<export_query> decode_export_query(std::span<const std::byte>);

// The data of LIST_META_CONTEXT and SET_META_CONTEXT. Only the syntax is judged here: queries are any bytes.
struct context_query {
  std::string name;  // Of the export.
  std::vector<std::string> queries;
};
// 32 bits name length, the name, 32 bits count of queries: what no queries take.
inline constexpr std::size_t context_query_size_min = 8;
void append(std::vector<std::byte>& to, const context_query&);
[[nodiscard]] std::optional<context_query> decode_context_query(std::span<const std::byte>);

// Answers to an option, header included, each appended to `to`.
// Texts that are longer than the specification allows are cut.
void append_option_reply(std::vector<std::byte>& to, option answered, option_reply what,
                         std::string_view text = {});
void append_list_entry(std::vector<std::byte>& to, std::string_view name, std::string_view description);
void append_meta_context(std::vector<std::byte>& to, option answered, std::uint32_t id,
                         std::string_view name);
void append_info(std::vector<std::byte>& to, option answered, const info_export& payload);
void append_info(std::vector<std::byte>& to, option answered, const info_block_size& payload);
void append_info(std::vector<std::byte>& to, option answered, info what, std::string_view text);

// Grows `to` by `Size` bytes and returns them; valid until `to` changes again.
template <std::size_t Size>
[[nodiscard]] std::span<std::byte, Size> grown(std::vector<std::byte>& to) {
  to.resize(to.size() + Size);
  return std::span(to).template last<Size>();
}

}  // namespace aionbd::protocol
