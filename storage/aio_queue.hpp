// io_queue on Linux native AIO: queue, submit in batches, be woken through an eventfd, reap, drain.
// Belongs to one thread; only post() may be called from others. What AIO cannot do goes to the offload queue
// and comes back through the same door.
#pragma once

#include <cstdint>
#include <mutex>

#include "storage/io_queue.hpp"

struct io_context;
struct iocb;

namespace aionbd::storage {

class offload_queue;

class aio_queue final : public io_queue {
 public:
  // io_submit as libaio has it: how many were taken, or -errno. Tests put their own here.
  using submit_call = int (*)(io_context*, long, iocb**);

  // `depth`: the most requests in the kernel at once, counted against fs.aio-max-nr for the whole machine.
  // Throws std::system_error: EAGAIN when fs.aio-max-nr is used up.
  aio_queue(unsigned depth, offload_queue& blocking, submit_call take = nullptr);
  aio_queue(const aio_queue&) = delete;
  aio_queue& operator=(const aio_queue&) = delete;
  ~aio_queue() override;  // outstanding() must be 0: the kernel holds addresses of buffers until then

  void submit(io_request& request) override;
  void flush() override;
  std::size_t deliver_finished() override;
  void post(io_request& request) override;

  // Readable when drain() has something to do. Owned by the queue.
  int event_fd() const { return event_fd_; }

  // Calls the hooks of everything that has completed and submits what they asked for; returns how many.
  std::size_t drain();

  // Requests taken and not yet given back through their hooks.
  std::size_t outstanding() const { return outstanding_; }

  // For measurements: how often the kernel was called to submit, and with how many requests in all.
  struct counters {
    std::uint64_t submit_calls = 0;
    std::uint64_t requests = 0;
  };
  const counters& counts() const { return counts_; }

 private:
  void prepare(io_request& request);
  bool submit_batch();
  void refuse_first(std::int64_t result);
  void offload_first();
  std::size_t reap();
  std::size_t deliver_posted();
  void finish(io_request& request);

  const unsigned depth_;
  offload_queue& blocking_;
  const submit_call submit_call_;
  io_context* context_ = nullptr;
  int event_fd_ = -1;

  io_list queued_;  // for the kernel, in order of arrival
  std::size_t queued_count_ = 0;
  std::size_t in_kernel_ = 0;
  std::size_t outstanding_ = 0;
  counters counts_;

  std::mutex posted_mutex_;
  io_list posted_;  // guarded by posted_mutex_
};

}  // namespace aionbd::storage
