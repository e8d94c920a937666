// One read or write carried to its end: the kernel may transfer less than asked, the rest is asked for again.
#pragma once

#include <cstdint>
#include <system_error>

#include "storage/io_queue.hpp"

namespace aionbd::storage {

class transfer {
 public:
  // Called once, from the queue's drain, when all bytes are transferred or an error ended it.
  using continuation = void (*)(void* owner, std::error_code failure);

  struct range {
    io_op op = io_op::read;
    int fd = -1;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;     // bytes, more than 0
    std::uint64_t alignment = 1;  // what is asked for again starts and ends on it
    std::byte* memory = nullptr;
    bool durable = false;
  };

  // The transfer, its owner and the memory must stay where they are until the continuation runs.
  void start(io_queue& queue, const range& what, void* owner, continuation done);

  // Where the first byte lies that was not transferred. For a continuation that is told of an error.
  std::uint64_t reached() const { return io_.offset; }

 private:
  static void on_completion(io_request& request);
  void submit_rest();
  void take(std::int64_t result);

  io_request io_;
  io_queue* queue_ = nullptr;
  std::uint64_t alignment_ = 1;
  std::uint64_t left_ = 0;
  void* owner_ = nullptr;
  continuation done_ = nullptr;
};

}  // namespace aionbd::storage
