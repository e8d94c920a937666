// A request to a block device with memory of exactly the size and alignment that the device asks for, which
// counts how often it is ended and complains if that is inside submit().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "storage/block_device.hpp"
#include "tests/storage/aligned_memory.hpp"

namespace aionbd::storage {

class device_request {
 public:
  device_request(block_device& device, operation_kind kind, std::uint64_t offset = 0,
                 std::uint64_t length = 0);

  // What the request is; durable, witness and the like may be set before submit().
  operation op;

  // Fills the payload of a write.
  device_request& filled_with(std::byte value);

  void submit(io_queue& queue);

  std::span<std::byte> payload() const { return {memory_.get() + layout_.payload, op.length}; }
  bool is_done() const { return times_done_ == 1; }
  int times_done() const { return times_done_; }
  std::error_code failure() const { return op.failure; }
  bool was_done_inside_submit() const { return done_inside_submit_; }

 private:
  struct aligned_delete {
    std::align_val_t alignment{1};
    void operator()(std::byte* memory) const { ::operator delete(memory, alignment); }
  };
  static void on_done(operation& op);

  block_device& device_;
  memory_layout layout_;
  aligned_memory memory_;
  int times_done_ = 0;
  bool submitting_ = false;
  bool done_inside_submit_ = false;
};

}  // namespace aionbd::storage
