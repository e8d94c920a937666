#include "protocol/block_status.hpp"

#include <algorithm>
#include <cassert>
#include <limits>

#include "protocol/messages.hpp"
#include "protocol/replies.hpp"
#include "protocol/wire.hpp"

namespace aionbd::protocol {
namespace {

// What a 32-bit length is cut to when it does not fit: a multiple of every block size that can be advertised.
constexpr std::uint64_t cut_length = 0xffff0000;
static_assert(cut_length % block_size_min_max == 0);

// Collects extents in whole blocks, equal neighbours joined. What is left of the last block stays apart until
// more of it is known; a block of two kinds has what both have in common.
class extent_list {
 public:
  extent_list(std::uint64_t alignment, std::uint64_t length_wanted)
      : alignment_(alignment), length_wanted_(length_wanted) {}

  // False when no further extent may follow, and this one does not continue the last.
  bool add(status_extent next) {
    if (partial_.length > 0) {
      const std::uint64_t taken = std::min(next.length, alignment_ - partial_.length);
      partial_ = {partial_.length + taken, partial_.flags & next.flags};
      next.length -= taken;
      if (partial_.length < alignment_) return true;
      const status_extent whole = partial_;
      partial_ = {};
      if (!join(whole)) return false;
    }
    const std::uint64_t rest = next.length % alignment_;
    if (!join({next.length - rest, next.flags})) return false;
    partial_ = {rest, next.flags};
    return true;
  }

  // The block that the end of the export, or of what was found, cut short.
  void add_partial() { (void)join(partial_); }  // A full list ends before it, which is an answer too.

  [[nodiscard]] std::uint64_t length() const noexcept { return length_; }
  [[nodiscard]] std::uint64_t partial_length() const noexcept { return partial_.length; }
  [[nodiscard]] std::vector<status_extent>& extents() noexcept { return extents_; }

 private:
  bool join(const status_extent& next) {
    if (next.length == 0) return true;
    const bool continues = !extents_.empty() && extents_.back().flags == next.flags;
    const bool is_full = extents_.size() == status_extents_max || length_ >= length_wanted_;
    if (!continues && is_full) return false;
    length_ += next.length;
    if (continues) {
      extents_.back().length += next.length;
    } else {
      extents_.push_back(next);
    }
    return true;
  }

  std::uint64_t alignment_;
  std::uint64_t length_wanted_;
  std::uint64_t length_ = 0;
  status_extent partial_;
  std::vector<status_extent> extents_;
};

// Cuts the list at the first extent that 32 bits cannot hold: the client asks on from there.
void cut_to_32_bits(std::vector<status_extent>& extents) {
  const auto is_too_long = [](const status_extent& each) {
    return each.length > std::numeric_limits<std::uint32_t>::max();
  };
  const auto found = std::find_if(extents.begin(), extents.end(), is_too_long);
  if (found == extents.end()) return;
  found->length = cut_length;
  extents.erase(found + 1, extents.end());
}

}  // namespace

std::vector<status_extent> fitted_extents(std::span<const status_extent> found, const request& asked,
                                          const terms& agreed) {
  const std::uint64_t alignment =
      agreed.block_sizes_requested ? std::max(agreed.chosen->block_size_min, 1U) : 1U;
  const std::uint64_t to_end = agreed.chosen->size - asked.offset;
  extent_list list(alignment, asked.length);
  std::uint64_t left = to_end;
  for (const status_extent& each : found) {
    const status_extent next{std::min(each.length, left), each.flags};
    left -= next.length;
    if (!list.add(next)) break;
  }
  const bool reached_end = list.length() + list.partial_length() == to_end;
  if (reached_end || list.extents().empty()) list.add_partial();

  std::vector<status_extent>& result = list.extents();
  // Nothing was found: of all flags clear, nobody can be misled.
  if (result.empty()) result.push_back({asked.length, 0});
  if ((asked.flags & command_flag::req_one) != 0) {
    result.resize(1);
    result.front().length = std::min(result.front().length, asked.length);
  }
  if (agreed.replies != reply_mode::extended) cut_to_32_bits(result);
  return std::move(result);
}

void append_block_status(std::vector<std::byte>& to, const request& asked, const terms& agreed,
                         std::uint32_t context_id, std::span<const status_extent> found) {
  assert(agreed.replies != reply_mode::simple);
  const bool extended = agreed.replies == reply_mode::extended;
  const std::vector<status_extent> extents = fitted_extents(found, asked, agreed);
  // Structured: an id, then 32 bits each of length and flags. Extended: an id and a count, then 64 bits each.
  const std::size_t payload = extended ? 8 + 16 * extents.size() : 4 + 8 * extents.size();
  const std::size_t header = chunk_header_size(agreed.replies);
  const chunk what = extended ? chunk::block_status_ext : chunk::block_status;
  to.resize(to.size() + header + payload);
  const auto room = std::span(to).last(header + payload);
  encode_chunk_header(room, agreed.replies, {reply_flag::done, what, asked.cookie, asked.offset, payload});
  writer out(room.subspan(header));
  out.number(context_id);
  if (extended) out.number(static_cast<std::uint32_t>(extents.size()));
  for (const status_extent& each : extents) {
    if (extended) {
      out.number(each.length).number(std::uint64_t{each.flags});
    } else {
      out.number(static_cast<std::uint32_t>(each.length)).number(each.flags);
    }
  }
}

}  // namespace aionbd::protocol
