// Threads for what native AIO lacks or would block on: fallocate, discard, buffered I/O, and requests that
// the kernel refused to take asynchronously. Shared by all loops; results go back through each loop's own
// queue.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "storage/io_queue.hpp"

namespace aionbd::storage {

class offload_queue {
 public:
  static constexpr unsigned threads_default = 8;

  explicit offload_queue(unsigned threads = threads_default) { add_threads(threads); }
  offload_queue(const offload_queue&) = delete;
  offload_queue& operator=(const offload_queue&) = delete;
  ~offload_queue();  // finishes what was taken, then joins its threads

  // For a queue that was made with none, because the process had something to do before its first thread.
  // Until then nothing that is run gets anywhere. Throws std::system_error.
  void add_threads(unsigned threads);

  // Any thread. The request is carried out by a thread of this queue and then given to home.post().
  // `home` must live until then. Unbounded: each request belongs to an operation that was admitted already.
  void run(io_request& request, io_queue& home) noexcept;

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  io_list waiting_;  // in order of arrival
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// Carries a request out on the calling thread, blocking: what io_request::result is to be.
[[nodiscard]] std::int64_t perform(const io_request& request);

}  // namespace aionbd::storage
