#include "server/request_slot.hpp"

namespace aionbd::server {

request_slot& slot_pool::take() {
  if (free_.empty()) {
    free_.reserve(slots_.size() + 1);  // giving back needs no memory
    return *slots_.emplace_back(std::make_unique<request_slot>());
  }
  request_slot& slot = *free_.back();
  free_.pop_back();
  return slot;
}

void slot_pool::give_back(request_slot& slot) noexcept {
  slot.buffer = {};
  slot.payload = nullptr;
  slot.charged = 0;
  slot.reply.clear();
  free_.push_back(&slot);
}

}  // namespace aionbd::server
