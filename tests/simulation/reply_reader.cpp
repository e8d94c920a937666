#include "tests/simulation/reply_reader.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace aionbd::tests {

namespace {

using protocol::command;
using protocol::reply_mode;

constexpr std::uint64_t none = 0, offset_data = 1, offset_hole = 2, block_status = 5, block_status_ext = 6,
                        error = 0x8001, error_offset = 0x8002;
constexpr std::uint64_t done = 1;
constexpr std::uint64_t eoverflow = 75, enotsup = 95, eshutdown = 108;

std::uint64_t number(std::span<const std::byte> from, std::size_t offset, std::size_t octets) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < octets; ++i) {
    value = value << 8U | std::to_integer<std::uint64_t>(from[offset + i]);
  }
  return value;
}

bool is_known(std::uint64_t code) {
  constexpr std::array<std::uint64_t, 8> codes{1, 5, 12, 22, 28, eoverflow, enotsup, eshutdown};
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

bool has(const protocol::request& asked, std::uint16_t flag) {
  return (asked.flags & flag) != 0;
}

}  // namespace

void reply_reader::heard(std::span<const std::byte> more) {
  unread_.insert(unread_.end(), more.begin(), more.end());
  std::size_t used = 0;
  while (complaint_.empty()) {
    const std::size_t taken = take_next(bytes(unread_).subspan(used));
    if (taken == 0) break;
    used += taken;
  }
  unread_.erase(unread_.begin(), unread_.begin() + static_cast<std::ptrdiff_t>(used));
}

std::size_t reply_reader::take_next(bytes from) {
  return agreed_.replies == reply_mode::simple ? take_simple(from) : take_chunk(from);
}

std::size_t reply_reader::take_simple(bytes from) {
  constexpr std::size_t header = 16;
  if (from.size() < header) return 0;
  require(number(from, 0, 4) == 0x67446698, "a simple reply without its magic");
  open_reply* const reply = find(number(from, 8, 8));
  if (reply == nullptr) return 0;
  answer& whole = reply->whole;
  whole.error = static_cast<std::uint32_t>(number(from, 4, 4));
  const bool has_data = whole.error == 0 && whole.asked.what == command::read;
  const std::size_t length = has_data ? whole.asked.length : 0;
  if (from.size() < header + length) return 0;
  whole.data.assign(from.begin() + header, from.begin() + static_cast<std::ptrdiff_t>(header + length));
  if (whole.error != 0) check_error(*reply);
  finish(*reply);
  return header + length;
}

std::size_t reply_reader::take_chunk(bytes from) {
  const bool extended = agreed_.replies == reply_mode::extended;
  const std::size_t header = extended ? 32 : 20;
  if (from.size() < header) return 0;
  require(number(from, 0, 4) == (extended ? 0x6e8a278c : 0x668e33ef), "a chunk without its magic");
  const std::uint64_t flags = number(from, 4, 2), type = number(from, 6, 2);
  require((flags & ~done) == 0, "a chunk with an unknown flag");
  open_reply* const reply = find(number(from, 8, 8));
  if (reply == nullptr) return 0;
  const protocol::request& asked = reply->whole.asked;
  if (extended) require(number(from, 16, 8) == asked.offset, "a chunk with another request's offset");
  const std::uint64_t length = extended ? number(from, 24, 8) : number(from, 16, 4);
  require(length <= asked.length + 16 + 16 * protocol::status_extents_max + protocol::text_length_max,
          "a chunk longer than anything that was asked for");
  if (from.size() - header < length) return 0;

  const bytes payload = from.subspan(header, length);
  const bool is_last = (flags & done) != 0;
  if (type == none) {
    require(length == 0 && is_last, "an empty chunk that is not empty, or not the last");
  } else if (type == offset_data || type == offset_hole) {
    take_content(*reply, type, payload);
  } else if (type == block_status || type == block_status_ext) {
    require(is_last, "more than one chunk for BLOCK_STATUS");
    take_status(*reply, type, payload);
  } else {
    require(is_last, "an error that is not the last chunk");
    take_error(*reply, type, payload);
  }
  if (is_last) finish(*reply);
  return header + length;
}

void reply_reader::take_content(open_reply& reply, std::uint64_t type, bytes payload) {
  answer& whole = reply.whole;
  require(whole.asked.what == command::read, "content for a request that is no READ");
  require(type == offset_hole ? payload.size() == 12 : payload.size() > 8, "content of a wrong length");
  if (!complaint_.empty()) return;
  const std::uint64_t offset = number(payload, 0, 8);
  const std::uint64_t length = type == offset_hole ? number(payload, 8, 4) : payload.size() - 8;
  const std::uint64_t begin = whole.asked.offset, end = begin + whole.asked.length;
  require(length != 0 && offset >= begin && offset <= end && length <= end - offset,
          "content outside of the request");
  require(!has(whole.asked, protocol::command_flag::df) || reply.content.empty(), "DF in pieces");
  if (!complaint_.empty()) return;
  const auto after = reply.content.lower_bound(offset);
  const bool is_free =
      (after == reply.content.end() || after->first >= offset + length) &&
      (after == reply.content.begin() || std::prev(after)->first + std::prev(after)->second <= offset);
  require(is_free, "content that overlaps other content");
  reply.content[offset] = length;
  whole.data.resize(whole.asked.length);
  if (type == offset_data) {
    std::copy(payload.begin() + 8, payload.end(),
              whole.data.begin() + static_cast<std::ptrdiff_t>(offset - begin));
  }
}

// "NBD_REPLY_TYPE_BLOCK_STATUS", and the one with 64 bits: rule 24.
void reply_reader::take_status(const open_reply& reply, std::uint64_t type, bytes payload) {
  const protocol::request& asked = reply.whole.asked;
  const bool wide = agreed_.replies == reply_mode::extended;
  require(asked.what == command::block_status && agreed_.allocation_selected, "extents nobody asked for");
  require(type == (wide ? block_status_ext : block_status), "extents of another mode's width");
  const std::size_t head = wide ? 8 : 4, width = wide ? 8 : 4;
  require(payload.size() > head && (payload.size() - head) % (2 * width) == 0, "extents of a wrong length");
  if (!complaint_.empty()) return;
  const std::size_t count = (payload.size() - head) / (2 * width);
  require(number(payload, 0, 4) == protocol::allocation_context_id, "extents of another context");
  require(!wide || number(payload, 4, 4) == count, "another count of extents than there are");
  std::uint64_t at = asked.offset, before = ~std::uint64_t{0};
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t length = number(payload, head + 2 * width * i, width);
    const std::uint64_t flags = number(payload, head + 2 * width * i + width, width);
    require(length != 0, "an empty extent");
    require(flags <= 3 && flags != before, "extents that should be one");
    require(at < asked.offset + asked.length, "an extent past the request");
    require(length <= agreed_.chosen->size - at, "an extent past the export");
    if (!complaint_.empty()) return;
    at += length;
    before = flags;
  }
  const bool one = has(asked, protocol::command_flag::req_one);
  require(!one || (count == 1 && at <= asked.offset + asked.length), "REQ_ONE with more than it asked for");
}

void reply_reader::take_error(open_reply& reply, std::uint64_t type, bytes payload) {
  const std::size_t tail = type == error_offset ? 8 : 0;
  require(type == error || type == error_offset, "a chunk of an unknown type");
  require(payload.size() >= 6 + tail && number(payload, 4, 2) == payload.size() - 6 - tail,
          "an error whose text has another length");
  if (!complaint_.empty()) return;
  require(payload.size() <= 6 + protocol::text_length_max + tail, "an error with too long a text");
  answer& whole = reply.whole;
  whole.error = static_cast<std::uint32_t>(number(payload, 0, 4));
  require(whole.error != 0, "an error without an error");
  if (tail != 0) {
    whole.failed_at = number(payload, payload.size() - tail, tail);
    require(
        *whole.failed_at >= whole.asked.offset && *whole.failed_at - whole.asked.offset < whole.asked.length,
        "an error outside of the request");
  }
  check_error(reply);
}

void reply_reader::check_error(const open_reply& reply) {
  const auto& [asked, code, failed_at, data] = reply.whole;
  require(is_known(code), "an error that is not in the list");
  const bool fast = asked.what == command::write_zeroes && has(asked, protocol::command_flag::fast_zero);
  require(code != enotsup || fast, "ENOTSUP where it is not allowed");
  require(code != eoverflow || asked.what == command::read, "EOVERFLOW where it is not allowed");
}

void reply_reader::finish(open_reply& reply) {
  if (!complaint_.empty()) return;
  answer& whole = reply.whole;
  const bool is_read = whole.asked.what == command::read;
  if (whole.error == 0 && is_read && agreed_.replies != reply_mode::simple) {
    std::uint64_t told = 0;
    for (const auto& [offset, length] : reply.content) told += length;
    require(told == whole.asked.length, "a READ with a piece missing");
  }
  const std::uint64_t cookie = whole.asked.cookie;
  answers_.push_back(std::move(whole));
  open_.erase(cookie);
}

reply_reader::open_reply* reply_reader::find(std::uint64_t cookie) {
  const auto found = open_.find(cookie);
  require(found != open_.end(), "an answer to nothing that was asked, or a second one");
  return complaint_.empty() ? &found->second : nullptr;
}

}  // namespace aionbd::tests
