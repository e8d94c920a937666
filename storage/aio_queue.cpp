#include "storage/aio_queue.hpp"

#include <libaio.h>
#include <linux/fs.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <system_error>

#include "storage/offload_queue.hpp"

namespace aionbd::storage {

namespace {

constexpr std::size_t batch_max = 64;

// While the kernel has work of ours, waiting for a few more requests saves system calls, each of which also
// kicks the device. The more the kernel has, the longer it is busy, and the more may be waited for.
constexpr std::size_t submit_at_least = 8;

iocb* kernel_block_of(io_request& request) {
  static_assert(sizeof(iocb) <= sizeof(request.kernel_block));
  static_assert(alignof(iocb) <= alignof(io_request));
  return std::launder(static_cast<iocb*>(static_cast<void*>(request.kernel_block.data())));
}

bool is_for_kernel(io_op op) {
  return op == io_op::read || op == io_op::write || op == io_op::sync;
}

}  // namespace

aio_queue::aio_queue(unsigned depth, offload_queue& blocking, submit_call take)
    : depth_(depth), blocking_(blocking), submit_call_(take != nullptr ? take : ::io_submit) {
  event_fd_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (event_fd_ < 0) throw std::system_error(errno, std::system_category(), "eventfd");
  if (const int failure = ::io_setup(static_cast<int>(depth), &context_); failure < 0) {
    ::close(event_fd_);
    throw std::system_error(-failure, std::system_category(), "io_setup");
  }
}

aio_queue::~aio_queue() {
  if (outstanding_ != 0) std::abort();
  ::io_destroy(context_);
  ::close(event_fd_);
}

void aio_queue::submit(io_request& request) {
  assert(request.state == io_state::idle);
  ++outstanding_;
  if (!is_for_kernel(request.op)) {
    blocking_.run(request, *this);
    return;
  }
  request.state = io_state::queued;
  prepare(request);
  queued_.push_back(request);
  ++queued_count_;
  // An idle disk gets the first request at once; a busy one gets them in groups.
  if (in_kernel_ == 0 || queued_count_ >= std::max(submit_at_least, in_kernel_)) flush();
}

void aio_queue::prepare(io_request& request) {
  iocb* const block = new (request.kernel_block.data()) iocb{};
  const auto offset = static_cast<long long>(request.offset);
  switch (request.op) {
    case io_op::read:
      io_prep_pread(block, request.fd, request.memory, request.length, offset);
      break;
    case io_op::write:
      io_prep_pwrite(block, request.fd, request.memory, request.length, offset);
      break;
    default:
      io_prep_fdsync(block, request.fd);
      break;
  }
  if (request.op == io_op::write && request.durable) block->aio_rw_flags = RWF_DSYNC;
  io_set_eventfd(block, event_fd_);
  block->data = &request;
}

void aio_queue::flush() {
  while (!queued_.empty() && in_kernel_ < depth_) {
    if (!submit_batch()) return;
  }
}

// One io_submit. False when the rest has to wait for completions.
bool aio_queue::submit_batch() {
  std::array<iocb*, batch_max> blocks{};
  std::size_t offered = 0;
  const std::size_t room = std::min(batch_max, depth_ - in_kernel_);
  for (io_request* request = queued_.front(); request != nullptr && offered < room; request = request->next) {
    blocks[offered++] = kernel_block_of(*request);
  }

  const int taken = submit_call_(context_, static_cast<long>(offered), blocks.data());
  ++counts_.submit_calls;
  if (taken < 0 && taken != -EAGAIN && taken != -EINTR) {
    // The error is the first request's alone; those behind it have not been looked at.
    refuse_first(taken);
    return true;
  }
  for (int i = 0; i < taken; ++i) {
    queued_.pop_front()->state = io_state::active;
    --queued_count_;
    ++in_kernel_;
    ++counts_.requests;
  }
  if (taken > 0) return true;

  // The kernel takes none just now. With requests of ours in it, the next completion tries again; with none,
  // nothing would ever wake us, so a thread carries the first one out.
  if (in_kernel_ > 0) return false;
  offload_first();
  return true;
}

void aio_queue::refuse_first(std::int64_t result) {
  io_request* const request = queued_.pop_front();
  --queued_count_;
  request->result = result;
  post(*request);
}

void aio_queue::offload_first() {
  io_request* const request = queued_.pop_front();
  --queued_count_;
  blocking_.run(*request, *this);
}

void aio_queue::post(io_request& request) {
  // The wake-up happens under the lock: once the list is seen empty again, the owner may destroy the queue.
  const std::lock_guard guard(posted_mutex_);
  const bool was_empty = posted_.empty();
  posted_.push_back(request);
  if (was_empty) (void)::eventfd_write(event_fd_, 1);  // fails only when full, which is readable as well
}

std::size_t aio_queue::drain() {
  // Reset before looking: what completes after the look makes the eventfd readable again.
  eventfd_t ignored = 0;
  (void)::eventfd_read(event_fd_, &ignored);

  const std::size_t count = deliver_posted() + reap();
  flush();
  return count;
}

// The eventfd stays readable: one drain too many costs less than resetting it each time.
std::size_t aio_queue::deliver_finished() {
  const std::size_t count = reap();
  if (count != 0) flush();
  return count;
}

// When there is nothing to reap, libaio sees so in the ring that it shares with the kernel.
std::size_t aio_queue::reap() {
  std::array<io_event, batch_max> events;
  std::size_t total = 0;
  for (;;) {
    timespec no_wait{};
    const int count = ::io_getevents(context_, 0, static_cast<long>(events.size()), events.data(), &no_wait);
    if (count <= 0) return total;
    in_kernel_ -= static_cast<std::size_t>(count);
    for (int i = 0; i < count; ++i) {
      const io_event& event = events[static_cast<std::size_t>(i)];
      auto* const request = static_cast<io_request*>(event.data);
      request->result = static_cast<std::int64_t>(event.res);
      finish(*request);
    }
    total += static_cast<std::size_t>(count);
    if (static_cast<std::size_t>(count) < events.size()) return total;
  }
}

std::size_t aio_queue::deliver_posted() {
  io_list ready;
  {
    const std::lock_guard guard(posted_mutex_);
    ready = posted_;
    posted_ = {};
  }
  std::size_t count = 0;
  while (io_request* const request = ready.pop_front()) {
    finish(*request);
    ++count;
  }
  return count;
}

void aio_queue::finish(io_request& request) {
  if (request.state != io_state::idle) --outstanding_;
  request.state = io_state::idle;
  request.hook(request);
}

}  // namespace aionbd::storage
