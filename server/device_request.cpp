#include "server/device_request.hpp"

#include <algorithm>
#include <cstdint>

#include "storage/aligned_buffer.hpp"

namespace aionbd::server {

namespace {

using protocol::command;
using storage::operation_kind;
namespace flag = protocol::command_flag;

constexpr std::size_t status_charge = 2 * protocol::status_extents_max * sizeof(storage::extent);
// Enough for one extent in whole blocks of the client's, whatever the file system's are.
constexpr std::size_t extents_for_one = 16;

bool has(const protocol::request& asked, std::uint16_t wanted) {
  return (asked.flags & wanted) != 0;
}

}  // namespace

bool carries_data(command what) {
  return what == command::read || what == command::write;
}

operation_kind kind_of(command what) {
  switch (what) {
    case command::read:
      return operation_kind::read;
    case command::write:
      return operation_kind::write;
    case command::trim:
      return operation_kind::trim;
    case command::write_zeroes:
      return operation_kind::write_zeroes;
    case command::block_status:
      return operation_kind::block_status;
    default:
      return operation_kind::flush;
  }
}

bool goes_in_steps(operation_kind kind) {
  return kind == operation_kind::trim || kind == operation_kind::write_zeroes;
}

std::size_t memory_for(const protocol::request& asked, const storage::block_device& device) {
  if (asked.length == 0) return 0;
  switch (asked.what) {
    case command::block_status:
      return has(asked, flag::req_one) ? 0 : status_charge;
    case command::write_zeroes: {
      // A range without a whole block is a single edge.
      const auto edge = std::min<std::uint64_t>(asked.length, 2 * device.shape().zeroing_granularity);
      return device.layout(operation_kind::write, asked.offset, edge).size;
    }
    case command::read:
    case command::write:
      return storage::buffer_pool::occupied_by(
          device.layout(kind_of(asked.what), asked.offset, asked.length).size);
    default:
      return 0;
  }
}

void describe(const protocol::request& asked, protocol::reply_mode replies, storage::operation& work) {
  work.kind = kind_of(asked.what);
  // A flush is about everything, whatever a client puts in these fields.
  const bool has_range = asked.what != command::flush;
  work.offset = has_range ? asked.offset : 0;
  work.length = has_range ? asked.length : 0;
  work.durable = asked.what != command::read && has(asked, flag::fua);
  work.keep_allocated = has(asked, flag::no_hole);
  work.only_if_fast = has(asked, flag::fast_zero);
  work.may_skip_holes = replies != protocol::reply_mode::simple && !has(asked, flag::df);
  work.extents.count_max = has(asked, flag::req_one) ? extents_for_one : protocol::status_extents_max;
}

}  // namespace aionbd::server
