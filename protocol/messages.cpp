#include "protocol/messages.hpp"

#include "protocol/text.hpp"
#include "protocol/wire.hpp"

namespace aionbd::protocol {
namespace {

std::span<std::byte> grown_by(std::vector<std::byte>& to, std::size_t length) {
  to.resize(to.size() + length);
  return std::span(to).last(length);
}

void append_header(std::vector<std::byte>& to, option answered, option_reply what, std::size_t length) {
  encode(grown<option_reply_header_size>(to),
         option_reply_header{answered, what, static_cast<std::uint32_t>(length)});
}

void keep_known(export_query& query, std::uint16_t wanted) noexcept {
  switch (static_cast<info>(wanted)) {
    case info::export_:
      return;  // It is sent in any case.
    case info::name:
      query.wants_name = true;
      return;
    case info::description:
      query.wants_description = true;
      return;
    case info::block_size:
      query.wants_block_size = true;
      return;
  }
}

}  // namespace

void encode(std::span<std::byte, greeting_size> to, const greeting& sent) noexcept {
  writer(to).number(greeting_magic).number(option_magic).number(sent.flags);
}

std::optional<greeting> decode_greeting(std::span<const std::byte, greeting_size> from) noexcept {
  reader in(from);
  if (in.number<std::uint64_t>() != greeting_magic) return std::nullopt;
  if (in.number<std::uint64_t>() != option_magic) return std::nullopt;
  return greeting{in.number<std::uint16_t>()};
}

void encode(std::span<std::byte, client_flags_size> to, const client_flags& sent) noexcept {
  writer(to).number(sent.flags);
}

client_flags decode_client_flags(std::span<const std::byte, client_flags_size> from) noexcept {
  return {reader(from).number<std::uint32_t>()};
}

void encode(std::span<std::byte, option_header_size> to, const option_header& sent) noexcept {
  writer(to).number(option_magic).number(static_cast<std::uint32_t>(sent.what)).number(sent.length);
}

std::optional<option_header> decode_option_header(
    std::span<const std::byte, option_header_size> from) noexcept {
  reader in(from);
  if (in.number<std::uint64_t>() != option_magic) return std::nullopt;
  option_header result;
  result.what = static_cast<option>(in.number<std::uint32_t>());
  result.length = in.number<std::uint32_t>();
  return result;
}

void encode(std::span<std::byte, option_reply_header_size> to, const option_reply_header& sent) noexcept {
  writer(to)
      .number(option_reply_magic)
      .number(static_cast<std::uint32_t>(sent.to))
      .number(static_cast<std::uint32_t>(sent.what))
      .number(sent.length);
}

std::optional<option_reply_header> decode_option_reply_header(
    std::span<const std::byte, option_reply_header_size> from) noexcept {
  reader in(from);
  if (in.number<std::uint64_t>() != option_reply_magic) return std::nullopt;
  option_reply_header result;
  result.to = static_cast<option>(in.number<std::uint32_t>());
  result.what = static_cast<option_reply>(in.number<std::uint32_t>());
  result.length = in.number<std::uint32_t>();
  return result;
}

void encode(std::span<std::byte, export_name_reply_size> to, const export_name_reply& sent) noexcept {
  writer(to).number(sent.size).number(sent.flags);
}

export_name_reply decode_export_name_reply(std::span<const std::byte, export_name_reply_size> from) noexcept {
  reader in(from);
  export_name_reply result;
  result.size = in.number<std::uint64_t>();
  result.flags = in.number<std::uint16_t>();
  return result;
}

void encode(std::span<std::byte, info_export_size> to, const info_export& sent) noexcept {
  writer(to).number(static_cast<std::uint16_t>(info::export_)).number(sent.size).number(sent.flags);
}

std::optional<info_export> decode_info_export(std::span<const std::byte, info_export_size> from) noexcept {
  reader in(from);
  if (in.number<std::uint16_t>() != static_cast<std::uint16_t>(info::export_)) return std::nullopt;
  info_export result;
  result.size = in.number<std::uint64_t>();
  result.flags = in.number<std::uint16_t>();
  return result;
}

void encode(std::span<std::byte, info_block_size_size> to, const info_block_size& sent) noexcept {
  writer(to)
      .number(static_cast<std::uint16_t>(info::block_size))
      .number(sent.minimum)
      .number(sent.preferred)
      .number(sent.payload_max);
}

std::optional<info_block_size> decode_info_block_size(
    std::span<const std::byte, info_block_size_size> from) noexcept {
  reader in(from);
  if (in.number<std::uint16_t>() != static_cast<std::uint16_t>(info::block_size)) return std::nullopt;
  info_block_size result;
  result.minimum = in.number<std::uint32_t>();
  result.preferred = in.number<std::uint32_t>();
  result.payload_max = in.number<std::uint32_t>();
  return result;
}

void append(std::vector<std::byte>& to, const export_query& query) {
  std::vector<info> wanted;
  if (query.wants_name) wanted.push_back(info::name);
  if (query.wants_description) wanted.push_back(info::description);
  if (query.wants_block_size) wanted.push_back(info::block_size);
  writer out(grown_by(to, export_query_size_min + query.name.size() + sizeof(info) * wanted.size()));
  out.number(static_cast<std::uint32_t>(query.name.size())).text(query.name);
  out.number(static_cast<std::uint16_t>(wanted.size()));
  for (const info each : wanted) out.number(static_cast<std::uint16_t>(each));
}

std::optional<export_query> decode_export_query(std::span<const std::byte> from) {
  if (from.size() < export_query_size_min) return std::nullopt;
  reader in(from);
  // The name may take all but the two other fields; compared before anything is subtracted from it or added
  // to it.
  const std::uint64_t name_length = in.number<std::uint32_t>();
  if (name_length > from.size() - export_query_size_min) return std::nullopt;
  export_query result;
  result.name = in.text(name_length);
  const std::size_t count = in.number<std::uint16_t>();
  if (in.remaining() != count * sizeof(info)) return std::nullopt;
  for (std::size_t i = 0; i < count; ++i) keep_known(result, in.number<std::uint16_t>());
  return result;
}

void append(std::vector<std::byte>& to, const context_query& query) {
  std::size_t length = context_query_size_min + query.name.size();
  for (const std::string& each : query.queries) length += sizeof(std::uint32_t) + each.size();
  writer out(grown_by(to, length));
  out.number(static_cast<std::uint32_t>(query.name.size())).text(query.name);
  out.number(static_cast<std::uint32_t>(query.queries.size()));
  for (const std::string& each : query.queries)
    out.number(static_cast<std::uint32_t>(each.size())).text(each);
}

std::optional<context_query> decode_context_query(std::span<const std::byte> from) {
  reader in(from);
  context_query result;
  result.name = in.text(in.number<std::uint32_t>());
  const std::size_t count = in.number<std::uint32_t>();
  // Each query takes at least its own length, so a count that cannot be true costs no memory.
  if (!in.ok() || count > in.remaining() / sizeof(std::uint32_t)) return std::nullopt;
  result.queries.reserve(count);
  for (std::size_t i = 0; i < count; ++i) result.queries.push_back(in.text(in.number<std::uint32_t>()));
  if (!in.ok() || in.remaining() != 0) return std::nullopt;
  return result;
}

void append_option_reply(std::vector<std::byte>& to, option answered, option_reply what,
                         std::string_view text) {
  const std::string_view sent = clipped(text, text_length_max);
  append_header(to, answered, what, sent.size());
  writer(grown_by(to, sent.size())).text(sent);
}

void append_list_entry(std::vector<std::byte>& to, std::string_view name, std::string_view description) {
  const std::string_view shown = clipped(description, text_length_max);
  const std::size_t length = sizeof(std::uint32_t) + name.size() + shown.size();
  append_header(to, option::list, option_reply::server, length);
  writer(grown_by(to, length)).number(static_cast<std::uint32_t>(name.size())).text(name).text(shown);
}

void append_meta_context(std::vector<std::byte>& to, option answered, std::uint32_t id,
                         std::string_view name) {
  const std::size_t length = sizeof(id) + name.size();
  append_header(to, answered, option_reply::meta_context, length);
  writer(grown_by(to, length)).number(id).text(name);
}

void append_info(std::vector<std::byte>& to, option answered, const info_export& payload) {
  append_header(to, answered, option_reply::info, info_export_size);
  encode(grown<info_export_size>(to), payload);
}

void append_info(std::vector<std::byte>& to, option answered, const info_block_size& payload) {
  append_header(to, answered, option_reply::info, info_block_size_size);
  encode(grown<info_block_size_size>(to), payload);
}

void append_info(std::vector<std::byte>& to, option answered, info what, std::string_view text) {
  const std::string_view sent = clipped(text, text_length_max);
  const std::size_t length = sizeof(info) + sent.size();
  append_header(to, answered, option_reply::info, length);
  writer(grown_by(to, length)).number(static_cast<std::uint16_t>(what)).text(sent);
}

}  // namespace aionbd::protocol
