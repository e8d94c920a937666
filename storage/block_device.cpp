#include "storage/block_device.hpp"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdlib>

#include "storage/device_facts.hpp"
#include "storage/sparse_read.hpp"
#include "storage/zeroing.hpp"

namespace aionbd::storage {

namespace {

operation& operation_of(void* owner) {
  return *static_cast<operation*>(owner);
}

}  // namespace

operation::~operation() {
  if (device_ != nullptr) std::abort();
}

block_device::block_device(const geometry& shape, const descriptors& file)
    : shape_(shape),
      file_(file),
      syncs_(file.buffered),
      may_have_holes_(shape.may_have_holes),
      dense_(shape.size),
      can_punch_hole_(shape.can_punch_hole),
      can_zero_range_(shape.can_zero_range),
      can_discard_(shape.can_discard) {}

// What of a range is done by direct I/O. Empty past direct_end.
padded_range block_device::direct_part(std::uint64_t offset, std::uint64_t length) const {
  if (offset >= shape_.direct_end) return {};
  return pad(offset, std::min(length, shape_.direct_end - offset), shape_.alignment);
}

std::uint64_t block_device::scratch_length(operation_kind kind, const padded_range& blocks) const {
  if (kind != operation_kind::write || blocks.is_exact()) return 0;
  return read_modify_write::scratch_length(shape_.alignment);
}

memory_layout block_device::layout(operation_kind kind, std::uint64_t offset, std::uint64_t length) const {
  const padded_range blocks = direct_part(offset, length);
  const std::uint64_t payload = scratch_length(kind, blocks) + blocks.head;
  return {.size = payload + length + blocks.tail, .payload = payload};
}

void block_device::submit(operation& op, io_queue& queue) {
  assert(op.offset <= shape_.size && op.length <= shape_.size - op.offset);
  assert(op.device_ == nullptr);
  op.device_ = this;
  op.queue_ = &queue;
  op.failure = {};
  op.failed_at.reset();
  if (op.kind == operation_kind::flush) return flush(op);
  if (op.length == 0) return resume_later(op, &block_device::finish);

  op.blocks_ = direct_part(op.offset, op.length);
  switch (op.kind) {
    case operation_kind::read:
      return read(op);
    case operation_kind::write:
      return lock(op, op.offset, op.length, &block_device::write_locked);
    case operation_kind::trim:
    case operation_kind::write_zeroes:
      return zeroing::start(*this, op);
    case operation_kind::block_status:
      return find_status(op);
    case operation_kind::flush:
      return;
  }
}

void block_device::read(operation& op) {
  op.extents.items.clear();
  if (op.may_skip_holes && sparse_read::pays_for(*this, op)) return sparse_read::start(*this, op);
  read_plainly(op);
}

void block_device::read_plainly(operation& op) {
  if (!has_direct_part(op)) return read_buffered(op);
  op.transfer_.start(*op.queue_,
                     {.op = io_op::read,
                      .fd = file_.direct,
                      .offset = op.blocks_.offset,
                      .length = op.blocks_.length,
                      .alignment = shape_.alignment,
                      .memory = op.memory},
                     &op, &block_device::on_direct_read);
}

void block_device::lock(operation& op, std::uint64_t offset, std::uint64_t length, step held) {
  assert(!shape_.read_only);
  const std::uint64_t end = offset + length;
  // Buffered writes do not read and write back what is beside them, so they claim their bytes and no more.
  op.claim_.begin = offset < shape_.direct_end ? round_down(offset, shape_.alignment) : offset;
  op.claim_.end = end <= shape_.direct_end ? round_up(end, shape_.alignment) : end;
  op.claim_.owner = &op;
  op.claim_.granted = [](range_lock::claim& claim) {
    operation& waiting = operation_of(claim.owner);
    waiting.queue_->post(waiting.message_);
  };
  op.resume_ = held;
  op.message_.owner = &op;
  op.message_.hook = &block_device::on_message;
  if (writes_.acquire(op.claim_)) held(op);
}

void block_device::resume_later(operation& op, step next) {
  op.resume_ = next;
  op.message_.owner = &op;
  op.message_.hook = &block_device::on_message;
  op.queue_->post(op.message_);
}

void block_device::on_message(io_request& request) {
  operation& op = operation_of(request.owner);
  op.resume_(op);
}

void block_device::on_direct_read(void* owner, std::error_code failure) {
  operation& op = operation_of(owner);
  if (failure || !op.device_->has_buffered_part(op)) return on_all_read(owner, failure);
  read_buffered(op);
}

void block_device::read_buffered(operation& op) {
  op.device_->transfer_buffered(op, io_op::buffered_read, &block_device::on_all_read);
}

void block_device::on_all_read(void* owner, std::error_code failure) {
  operation& op = operation_of(owner);
  op.failure = failure;
  if (failure) note_reached(op, op.transfer_.reached());
  finish(op);
}

void block_device::write_locked(operation& op) {
  block_device& device = *op.device_;
  if (is_called_off(op)) {
    device.unlock(op);
    op.failure = std::make_error_code(std::errc::operation_canceled);
    return resume_later(op, &block_device::finish);
  }
  if (!has_direct_part(op)) return write_buffered(op);
  const std::uint64_t alignment = device.shape_.alignment;
  if (!op.blocks_.is_exact()) {
    op.rmw_.start({op.queue_, device.file_.direct, alignment}, op.blocks_, op.memory, op.durable, &op,
                  &block_device::on_direct_written);
    return;
  }
  op.transfer_.start(*op.queue_,
                     {.op = io_op::write,
                      .fd = device.file_.direct,
                      .offset = op.blocks_.offset,
                      .length = op.blocks_.length,
                      .alignment = alignment,
                      .memory = op.memory,
                      .durable = op.durable},
                     &op, &block_device::on_direct_written);
}

void block_device::on_direct_written(void* owner, std::error_code failure) {
  operation& op = operation_of(owner);
  if (!failure && op.device_->has_buffered_part(op)) return write_buffered(op);
  bool counts = false;
  if (failure) {
    failure = op.device_->true_cause(op, failure);
    const bool is_exact = op.blocks_.is_exact();
    note_reached(op, is_exact ? op.transfer_.reached() : op.rmw_.reached());
    const bool has_written = is_exact || op.rmw_.has_begun_to_write();
    // Direct writes want room when their blocks are to be allocated, before anything is written or synced.
    counts = op.durable && has_written && !is_want_of_room(failure);
  }
  on_all_written(op, failure, counts);
}

// A write behind the end of a disk fails for want of room, and a disk that was taken away ends at 0: there
// will be no room again.
std::error_code block_device::true_cause(const operation& op, std::error_code failure) const {
  const bool is_gone = shape_.is_block_device && failure == std::errc::no_space_on_device &&
                       ends_before(file_.direct, op.offset + op.length);
  return is_gone ? std::error_code(EIO, std::system_category()) : failure;
}

void block_device::write_buffered(operation& op) {
  op.device_->transfer_buffered(op, io_op::buffered_write, &block_device::on_buffered_written);
}

void block_device::transfer_buffered(operation& op, io_op what, transfer::continuation next) {
  const std::uint64_t begin = std::max(op.offset, shape_.direct_end);
  const std::uint64_t in_memory = scratch_length(op.kind, op.blocks_) + op.blocks_.head + (begin - op.offset);
  op.transfer_.start(*op.queue_,
                     {.op = what,
                      .fd = file_.buffered,
                      .offset = begin,
                      .length = op.offset + op.length - begin,
                      .memory = op.memory + in_memory,
                      .durable = op.durable},
                     &op, next);
}

void block_device::on_buffered_written(void* owner, std::error_code failure) {
  operation& op = operation_of(owner);
  if (failure) {
    failure = op.device_->true_cause(op, failure);
    note_reached(op, op.transfer_.reached());
  }
  on_all_written(op, failure, failure && op.durable);
}

void block_device::on_all_written(operation& op, std::error_code failure, bool is_failed_sync) {
  block_device& device = *op.device_;
  if (is_failed_sync) device.syncs_.note_failure(failure);
  op.failure = failure;
  device.unlock(op);
  // An error of this write's own does not stand for the news.
  if (op.durable && (!failure || is_failed_sync)) device.hear_of_failed_syncs(op);
  finish(op);
}

void block_device::find_status(operation& op) {
  io_request& lookup = op.message_;
  lookup.op = io_op::map;
  lookup.fd = file_.direct;
  lookup.offset = op.offset;
  lookup.length = op.length;
  lookup.extents = &op.extents;
  lookup.owner = &op;
  lookup.hook = &block_device::on_status_found;
  op.queue_->submit(lookup);
}

void block_device::on_status_found(io_request& request) {
  operation& op = operation_of(request.owner);
  if (request.result < 0) {
    op.failure = {static_cast<int>(-request.result), std::system_category()};
    op.extents.items = std::vector<extent>();  // its memory is in nobody's account
  }
  finish(op);
}

void block_device::flush(operation& op) {
  op.flush_.queue = op.queue_;
  op.flush_.owner = &op;
  op.flush_.done = &block_device::on_flushed;
  syncs_.join(op.flush_);
}

void block_device::on_flushed(void* owner, std::error_code failure) {
  operation& op = operation_of(owner);
  op.failure = failure;
  op.device_->hear_of_failed_syncs(op);
  // Of a trim or a zeroing, some was done before this sync, and may have been lost by an earlier one.
  if (!op.failure && op.kind != operation_kind::flush) {
    op.failure = op.device_->syncs_.failure_since(op.failures_before_);
  }
  finish(op);
}

// Where a request failed is only known when some of it did not.
void block_device::note_reached(operation& op, std::uint64_t offset) {
  if (offset > op.offset) op.failed_at = offset;
}

void block_device::finish(operation& op) {
  op.device_ = nullptr;
  op.done(op);
}

void block_device::hear_of_failed_syncs(operation& op) {
  if (op.witness == nullptr) return;
  // Also in place of the failure of its own sync, which is among them: that may have been for want of room
  // only.
  const std::error_code unheard = syncs_.unheard_failure(*op.witness);
  if (unheard) op.failure = unheard;
}

}  // namespace aionbd::storage
