#include "storage/offload_queue.hpp"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <new>
#include <system_error>

#include "storage/extents.hpp"

namespace aionbd::storage {

namespace {

std::int64_t read_or_write(const io_request& request) {
  const iovec piece{.iov_base = request.memory, .iov_len = request.length};
  const auto offset = static_cast<off_t>(request.offset);
  if (request.op == io_op::read || request.op == io_op::buffered_read) {
    return ::preadv2(request.fd, &piece, 1, offset, 0);
  }
  return ::pwritev2(request.fd, &piece, 1, offset, request.durable ? RWF_DSYNC : 0);
}

std::int64_t discard(const io_request& request) {
  std::uint64_t range[2] = {request.offset, request.length};
  return ::ioctl(request.fd, BLKDISCARD, range);
}

std::int64_t map(const io_request& request) {
  std::error_code failure;
  try {
    failure = find_extents(request.fd, request.offset, request.length, *request.extents);
  } catch (const std::bad_alloc&) {
    failure = std::make_error_code(std::errc::not_enough_memory);
  }
  errno = failure.value();
  return failure ? -1 : 0;
}

std::int64_t attempt(const io_request& request) {
  const auto offset = static_cast<off_t>(request.offset);
  const auto length = static_cast<off_t>(request.length);
  switch (request.op) {
    case io_op::read:
    case io_op::write:
    case io_op::buffered_read:
    case io_op::buffered_write:
      return read_or_write(request);
    case io_op::sync:
      return ::fdatasync(request.fd);
    case io_op::punch_hole:
      return ::fallocate(request.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
    case io_op::zero_range:
      return ::fallocate(request.fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
    case io_op::discard:
      return discard(request);
    case io_op::map:
      return map(request);
  }
  errno = EINVAL;
  return -1;
}

}  // namespace

std::int64_t perform(const io_request& request) {
  for (;;) {
    const std::int64_t result = attempt(request);
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

void offload_queue::add_threads(unsigned threads) {
  // Signals are for the thread that waits for them.
  sigset_t all{};
  sigset_t before{};
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

offload_queue::~offload_queue() {
  {
    const std::lock_guard guard(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void offload_queue::run(io_request& request, io_queue& home) noexcept {
  {
    const std::lock_guard guard(mutex_);
    request.state = io_state::active;
    request.home = &home;
    waiting_.push_back(request);
  }
  wake_.notify_one();
}

void offload_queue::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    io_request* const next = waiting_.pop_front();
    if (next == nullptr) return;
    lock.unlock();
    next->result = perform(*next);
    next->home->post(*next);
    lock.lock();
  }
}

}  // namespace aionbd::storage
