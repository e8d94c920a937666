#include "server/request_slot.hpp"

namespace aionbd::server {

request_slot& slot_pool::take() {
  if (free_.empty()) return *slots_.emplace_back(std::make_unique<request_slot>());
  request_slot& slot = *free_.back();
  free_.pop_back();
  return slot;
}

void slot_pool::give_back(request_slot& slot) {
  slot.buffer = {};
  slot.payload = nullptr;
  slot.charged = 0;
  slot.reply.clear();
  free_.push_back(&slot);
}

}  // namespace aionbd::server
