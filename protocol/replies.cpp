#include "protocol/replies.hpp"

#include <cassert>
#include <limits>

#include "protocol/text.hpp"
#include "protocol/wire.hpp"

namespace aionbd::protocol {
namespace {

using head = std::span<std::byte, reply_header_max>;

std::size_t put_simple(head to, error result, std::uint64_t cookie) noexcept {
  encode_simple_reply(to.first<simple_reply_size>(), result, cookie);
  return simple_reply_size;
}

std::size_t put_chunk_header(head to, reply_mode mode, const request& answered, chunk what, bool done,
                             std::uint64_t length) noexcept {
  const std::uint16_t flags = done ? reply_flag::done : std::uint16_t{0};
  encode_chunk_header(to, mode, {flags, what, answered.cookie, answered.offset, length});
  return chunk_header_size(mode);
}

// "NBD_REPLY_TYPE_ERROR_OFFSET" lists the commands, and wants the offset within the request. Where the length
// is a payload's and not the range's, we do not know.
bool may_tell_offset(const request& failed, reply_mode mode, std::uint64_t failed_at) noexcept {
  switch (failed.what) {
    case command::read:
    case command::write:
    case command::trim:
    case command::cache:
    case command::write_zeroes:
    case command::block_status:
      break;
    default:
      return false;
  }
  if (failed.what != command::write && payload_length(failed, mode) != 0) return false;
  return failed_at >= failed.offset && failed_at - failed.offset < failed.length;
}

[[maybe_unused]] bool is_part_of(const request& answered, std::uint64_t offset,
                                 std::uint64_t length) noexcept {
  return offset >= answered.offset && offset - answered.offset <= answered.length &&
         length <= answered.length - (offset - answered.offset);
}

}  // namespace

void encode_simple_reply(std::span<std::byte, simple_reply_size> to, error result,
                         std::uint64_t cookie) noexcept {
  writer(to).number(simple_reply_magic).number(static_cast<std::uint32_t>(result)).number(cookie);
}

void encode_chunk_header(std::span<std::byte> to, reply_mode mode, const chunk_header& sent) noexcept {
  assert(mode != reply_mode::simple);
  const bool extended = mode == reply_mode::extended;
  writer out(to);
  out.number(extended ? extended_reply_magic : structured_reply_magic);
  out.number(sent.flags).number(static_cast<std::uint16_t>(sent.what)).number(sent.cookie);
  if (extended) {
    out.number(sent.offset).number(sent.length);
  } else {
    assert(sent.length <= std::numeric_limits<std::uint32_t>::max());
    out.number(static_cast<std::uint32_t>(sent.length));
  }
}

std::size_t encode_done(head to, reply_mode mode, const request& answered) noexcept {
  if (mode == reply_mode::simple) return put_simple(to, error::none, answered.cookie);
  return put_chunk_header(to, mode, answered, chunk::none, true, 0);
}

std::size_t encode_data_header(head to, reply_mode mode, const request& answered, std::uint64_t offset,
                               std::uint64_t length, bool done) noexcept {
  assert(is_part_of(answered, offset, length));
  if (mode == reply_mode::simple) {
    assert(length == answered.length && done);
    return put_simple(to, error::none, answered.cookie);
  }
  if (length == 0) {
    assert(done);
    return encode_done(to, mode, answered);
  }
  const std::size_t size =
      put_chunk_header(to, mode, answered, chunk::offset_data, done, sizeof offset + length);
  writer(to.subspan(size)).number(offset);
  return size + sizeof offset;
}

std::size_t encode_hole(head to, reply_mode mode, const request& answered, std::uint64_t offset,
                        std::uint64_t length, bool done) noexcept {
  assert(length > 0 && length <= std::numeric_limits<std::uint32_t>::max());
  assert(is_part_of(answered, offset, length));
  const auto hole_size = static_cast<std::uint32_t>(length);
  constexpr std::size_t payload = sizeof offset + sizeof hole_size;
  const std::size_t size = put_chunk_header(to, mode, answered, chunk::offset_hole, done, payload);
  writer(to.subspan(size)).number(offset).number(hole_size);
  return size + payload;
}

error_reply encode_error(head to, reply_mode mode, const request& failed, error result, std::string_view text,
                         std::optional<std::uint64_t> failed_at) noexcept {
  assert(result != error::none);
  if (mode == reply_mode::simple) return {put_simple(to, result, failed.cookie), {}, 0};
  const bool tells_offset = failed_at && may_tell_offset(failed, mode, *failed_at);
  const std::string_view shown = clipped(text, text_length_max);
  constexpr std::size_t before_text = sizeof(error) + sizeof(std::uint16_t);
  const std::size_t tail = tells_offset ? sizeof *failed_at : 0;
  const std::size_t size =
      put_chunk_header(to, mode, failed, tells_offset ? chunk::error_offset : chunk::error, true,
                       before_text + shown.size() + tail);
  writer out(to.subspan(size));
  out.number(static_cast<std::uint32_t>(result)).number(static_cast<std::uint16_t>(shown.size()));
  if (tells_offset) out.number(*failed_at);
  return {size + before_text, shown, tail};
}

std::optional<simple_reply> decode_simple_reply(std::span<const std::byte, simple_reply_size> from) noexcept {
  reader in(from);
  if (in.number<std::uint32_t>() != simple_reply_magic) return std::nullopt;
  simple_reply result;
  result.result = static_cast<error>(in.number<std::uint32_t>());
  result.cookie = in.number<std::uint64_t>();
  return result;
}

std::optional<chunk_header> decode_chunk_header(std::span<const std::byte> from, reply_mode mode) noexcept {
  const bool extended = mode == reply_mode::extended;
  reader in(from);
  if (in.number<std::uint32_t>() != (extended ? extended_reply_magic : structured_reply_magic)) {
    return std::nullopt;
  }
  chunk_header result;
  result.flags = in.number<std::uint16_t>();
  result.what = static_cast<chunk>(in.number<std::uint16_t>());
  result.cookie = in.number<std::uint64_t>();
  if (extended) result.offset = in.number<std::uint64_t>();
  result.length = extended ? in.number<std::uint64_t>() : in.number<std::uint32_t>();
  if (!in.ok()) return std::nullopt;
  return result;
}

}  // namespace aionbd::protocol
