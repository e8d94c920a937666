#include "server/answers.hpp"

#include <cassert>
#include <span>

#include "protocol/block_status.hpp"
#include "protocol/replies.hpp"
#include "protocol/requests.hpp"

namespace aionbd::server {

namespace {

using protocol::command;
using protocol::reply_mode;
using header_span = std::span<std::byte, protocol::reply_header_max>;

std::span<const std::byte> data_of(const request_slot& slot) {
  return {slot.payload, slot.asked.length};
}

void answer_whole_read(request_slot& slot, reply_mode mode) {
  reply& out = slot.reply;
  const std::size_t head =
      protocol::encode_data_header(out.header, mode, slot.asked, slot.asked.offset, slot.asked.length, true);
  out.add(std::span(out.header).first(head));
  out.add(data_of(slot));
}

// A chunk for each extent: everything was read already, so no error can follow and the last one says done.
void answer_sparse_read(request_slot& slot, reply_mode mode) {
  reply& out = slot.reply;
  const auto& extents = slot.work.extents.items;
  out.other.resize(extents.size() * protocol::reply_header_max);
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    const header_span head(out.other.data() + i * protocol::reply_header_max, protocol::reply_header_max);
    const std::uint64_t offset = slot.asked.offset + at;
    const std::uint64_t length = extents[i].length;
    const bool last = i + 1 == extents.size();
    if (extents[i].kind == storage::extent_kind::data) {
      out.add(head.first(protocol::encode_data_header(head, mode, slot.asked, offset, length, last)));
      out.add(data_of(slot).subspan(at, length));
    } else {
      out.add(head.first(protocol::encode_hole(head, mode, slot.asked, offset, length, last)));
    }
    at += length;
  }
  assert(at == slot.asked.length);
}

std::uint32_t state_of(storage::extent_kind kind) {
  namespace state = protocol::state_flag;
  switch (kind) {
    case storage::extent_kind::hole:
      return state::hole | state::zero;
    // It has its space, so that a write to it cannot find the disk full.
    case storage::extent_kind::unwritten:
      return state::zero;
    case storage::extent_kind::data:
      return 0;
  }
  return 0;
}

void answer_block_status(request_slot& slot, const protocol::terms& agreed) {
  std::vector<protocol::status_extent> found;
  found.reserve(slot.work.extents.items.size());
  for (const storage::extent& item : slot.work.extents.items) {
    found.push_back({.length = item.length, .flags = state_of(item.kind)});
  }
  // A mere {} would leave the memory where it is.
  slot.work.extents.items = std::vector<storage::extent>();
  protocol::append_block_status(slot.reply.other, slot.asked, agreed, protocol::allocation_context_id, found);
  slot.reply.add(slot.reply.other);
}

}  // namespace

void answer_success(request_slot& slot, const protocol::terms& agreed) {
  reply& out = slot.reply;
  if (slot.asked.what == command::block_status) return answer_block_status(slot, agreed);
  if (slot.asked.what == command::read && slot.asked.length != 0) {
    const bool sparse = !slot.work.extents.items.empty();
    return sparse ? answer_sparse_read(slot, agreed.replies) : answer_whole_read(slot, agreed.replies);
  }
  out.add(std::span(out.header).first(protocol::encode_done(out.header, agreed.replies, slot.asked)));
}

void answer_error(request_slot& slot, const protocol::terms& agreed, protocol::error result,
                  std::optional<std::uint64_t> failed_at) {
  reply& out = slot.reply;
  const auto text = protocol::sentence_for(result, slot.asked, agreed);
  const auto pieces = protocol::encode_error(out.header, agreed.replies, slot.asked, result, text, failed_at);
  const std::span<const std::byte> header(out.header);
  out.add(header.first(pieces.header_length));
  out.add(std::as_bytes(std::span(pieces.text)));
  out.add(header.subspan(pieces.header_length, pieces.tail_length));
}

}  // namespace aionbd::server
