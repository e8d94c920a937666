#include "tests/storage/device_request.hpp"

#include <algorithm>

namespace aionbd::storage {

device_request::device_request(block_device& device, operation_kind kind, std::uint64_t offset,
                               std::uint64_t length)
    : device_(device) {
  op.kind = kind;
  op.offset = offset;
  op.length = length;
  op.owner = this;
  op.done = &device_request::on_done;
  if (kind != operation_kind::read && kind != operation_kind::write) return;
  if (length == 0) return;
  layout_ = device.layout(kind, offset, length);
  memory_ = allocate_aligned(layout_.size, device.shape().alignment);
  std::fill_n(memory_.get(), layout_.size, std::byte{0xEE});
  op.memory = memory_.get();
}

device_request& device_request::filled_with(std::byte value) {
  std::ranges::fill(payload(), value);
  return *this;
}

void device_request::submit(io_queue& queue) {
  times_done_ = 0;
  submitting_ = true;
  device_.submit(op, queue);
  submitting_ = false;
}

void device_request::on_done(operation& op) {
  auto& request = *static_cast<device_request*>(op.owner);
  ++request.times_done_;
  if (request.submitting_) request.done_inside_submit_ = true;
}

}  // namespace aionbd::storage
