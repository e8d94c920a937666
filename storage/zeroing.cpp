#include "storage/zeroing.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "storage/device_facts.hpp"

namespace aionbd::storage {

namespace {

// How file systems and drivers say that they do not know a way of zeroing.
bool is_unsupported(std::int64_t result) {
  return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENOTTY || result == -ENODEV;
}

// What whole blocks are written from, all at once: nobody can change it, and reading it takes no memory. Null
// when there is no room for it even in addresses.
std::byte* whole_zeroes() {
  constexpr std::size_t alignment_max = std::size_t{64} << 10;
  static void* const mapped = ::mmap(nullptr, zeroing::write_length_max + alignment_max, PROT_READ,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  void* aligned = mapped;
  std::size_t space = zeroing::write_length_max + alignment_max;
  return static_cast<std::byte*>(std::align(alignment_max, zeroing::write_length_max, aligned, space));
}

}  // namespace

zeroing::edge_memory::edge_memory(std::size_t size, std::size_t align)
    : data(static_cast<std::byte*>(::operator new (size, std::align_val_t{align}, std::nothrow))),
      alignment(align) {
  if (data != nullptr) std::memset(data, 0, size);
}

zeroing::edge_memory::~edge_memory() {
  ::operator delete (data, std::align_val_t{alignment});
}

void zeroing::start(block_device& device, operation& op) {
  // Not part of the hot path: a job of its own, which deletes itself in end().
  zeroing* job = nullptr;
  try {
    job = new zeroing(device, op);
  } catch (const std::bad_alloc&) {
    op.failure = std::make_error_code(std::errc::not_enough_memory);
    return block_device::resume_later(op, &block_device::finish);
  }
  if (job->method_ == method::write && op.only_if_fast && job->inner_.begin != job->inner_.end) {
    op.failure = std::make_error_code(std::errc::operation_not_supported);
    delete job;
    return block_device::resume_later(op, &block_device::finish);
  }
  // Started from the drain, so that nothing ends inside submit().
  op.owner_job_ = job;
  if (op.durable) op.failures_before_ = device.syncs_.failures();
  block_device::resume_later(op,
                             [](operation& ready) { static_cast<zeroing*>(ready.owner_job_)->next_step(); });
}

zeroing::zeroing(block_device& device, operation& op)
    : device_(device),
      op_(op),
      inner_(shrink(op.offset, op.length, device.shape_.zeroing_granularity)),
      method_(best_method()),
      done_until_(inner_.begin) {}

zeroing::method zeroing::best_method() const {
  if (op_.kind == operation_kind::trim) {
    if (device_.can_discard_) return method::discard;
    return device_.can_punch_hole_ ? method::punch_hole : method::nothing;
  }
  if (device_.can_punch_hole_ && !op_.keep_allocated) return method::punch_hole;
  return device_.can_zero_range_ ? method::zero_range : method::write;
}

void zeroing::next_step() {
  if (method_ == method::nothing) return end({});
  if (done_until_ < inner_.end) {
    const std::uint64_t length_max = method_ == method::write ? write_length_max : step_length_max;
    const std::uint64_t step_end = std::min(inner_.end, done_until_ + length_max);
    if (method_ != method::write) return submit_step(step_end);
    return write_zeroes(done_until_, step_end, whole_zeroes());
  }
  if (op_.kind == operation_kind::trim) return end({});

  // The edges come last: a refusal to do the inner part fast must come before anything is changed.
  const std::uint64_t end_offset = op_.offset + op_.length;
  const bool no_inner = inner_.begin == inner_.end;
  if (!first_edge_done_) {
    first_edge_done_ = true;
    if (write_edge(op_.offset, no_inner ? end_offset : inner_.begin)) return;
  }
  if (!last_edge_done_ && !no_inner) {
    last_edge_done_ = true;
    if (write_edge(inner_.end, end_offset)) return;
  }
  end({});
}

void zeroing::submit_step(std::uint64_t step_end) {
  step_end_ = step_end;
  device_.lock(op_, done_until_, step_end - done_until_, &zeroing::on_held);
}

void zeroing::on_held(operation& op) {
  auto& job = *static_cast<zeroing*>(op.owner_job_);
  if (block_device::is_called_off(op)) {
    job.device_.unlock(op);
    return job.end(std::make_error_code(std::errc::operation_canceled));
  }
  io_request& step = job.step_;
  switch (job.method_) {
    case method::discard:
      step.op = io_op::discard;
      break;
    case method::punch_hole:
      step.op = io_op::punch_hole;
      break;
    default:
      step.op = io_op::zero_range;
      break;
  }
  step.fd = job.device_.file_.direct;
  step.offset = job.done_until_;
  step.length = job.step_end_ - job.done_until_;
  step.owner = &job;
  step.hook = &zeroing::on_step_done;
  op.queue_->submit(step);
}

void zeroing::on_step_done(io_request& request) {
  auto& job = *static_cast<zeroing*>(request.owner);
  job.device_.unlock(job.op_);
  if (is_unsupported(request.result)) return job.refused();
  if (request.result < 0) {
    return job.end(std::error_code(static_cast<int>(-request.result), std::system_category()));
  }
  // Behind the end of a file that was cut off nothing has happened, and is nothing that could be read.
  const bool is_zeroing = job.op_.kind == operation_kind::write_zeroes;
  if (is_zeroing && ends_before(request.fd, request.offset + request.length)) {
    return job.end(std::error_code(EIO, std::system_category()));
  }
  // A disk has no map that could tell.
  if (!job.device_.shape_.is_block_device) job.device_.may_have_holes_ = true;
  job.device_.dense_.forget(request.offset, request.length);
  job.done_until_ = job.step_end_;
  job.next_step();
}

// The file system turned out not to know the method: remember that, and go on with the next best.
void zeroing::refused() {
  switch (method_) {
    case method::discard:
      device_.can_discard_ = false;
      break;
    case method::punch_hole:
      device_.can_punch_hole_ = false;
      // A disk refuses this and not the other, for which the kernel then writes the zeroes itself.
      if (device_.shape_.is_block_device) device_.can_zero_range_ = false;
      break;
    default:
      device_.can_zero_range_ = false;
      break;
  }
  method_ = best_method();
  if (method_ == method::write && op_.only_if_fast && done_until_ == inner_.begin) {
    return end(std::make_error_code(std::errc::operation_not_supported));
  }
  next_step();
}

// False when there is nothing to write. An unaligned write leaves old data around its payload, so each edge
// has memory of its own.
bool zeroing::write_edge(std::uint64_t begin, std::uint64_t end_offset) {
  if (begin == end_offset) return false;
  const memory_layout needed = device_.layout(operation_kind::write, begin, end_offset - begin);
  const std::size_t alignment = std::max<std::size_t>(device_.shape_.alignment, 4096);
  edge_.reset(new (std::nothrow) edge_memory(needed.size, alignment));
  write_zeroes(begin, end_offset, edge_ == nullptr ? nullptr : edge_->data);
  return true;
}

void zeroing::write_zeroes(std::uint64_t begin, std::uint64_t end_offset, std::byte* zeroes) {
  if (zeroes == nullptr) return end(std::make_error_code(std::errc::not_enough_memory));
  write_.kind = operation_kind::write;
  write_.offset = begin;
  write_.length = end_offset - begin;
  write_.memory = zeroes;
  write_.is_called_off = op_.is_called_off;
  write_.owner = this;
  write_.done = &zeroing::on_written;
  device_.submit(write_, *op_.queue_);
}

void zeroing::on_written(operation& write) {
  auto& job = *static_cast<zeroing*>(write.owner);
  if (write.failure) return job.end(write.failure);
  if (job.done_until_ < job.inner_.end) job.done_until_ = write.offset + write.length;
  job.next_step();
}

// Everything before this offset is done. The edges come last, so as long as there is a first one to come,
// nothing is.
std::uint64_t zeroing::reached() const {
  if (last_edge_done_) return write_.failed_at.value_or(inner_.end);
  if (first_edge_done_) return write_.failed_at.value_or(op_.offset);
  const bool has_first_edge = op_.kind != operation_kind::trim && inner_.begin != op_.offset;
  if (has_first_edge || done_until_ == inner_.begin) return op_.offset;
  return done_until_;
}

void zeroing::end(std::error_code failure) {
  operation& op = op_;
  if (failure) block_device::note_reached(op, reached());
  block_device& device = device_;
  delete this;
  op.failure = failure;
  // The zeroes, and that blocks were freed or changed hands, become durable together.
  if (!failure && op.durable) return device.flush(op);
  block_device::finish(op);
}

}  // namespace aionbd::storage
