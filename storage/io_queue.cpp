#include "storage/io_queue.hpp"

#include <cstdlib>

namespace aionbd::storage {

io_request::~io_request() {
  if (state != io_state::idle) std::abort();
}

void io_list::push_back(io_request& request) {
  request.next = nullptr;
  if (last_ != nullptr) {
    last_->next = &request;
  } else {
    first_ = &request;
  }
  last_ = &request;
}

io_request* io_list::pop_front() {
  io_request* const request = first_;
  if (request == nullptr) return nullptr;
  first_ = request->next;
  if (first_ == nullptr) last_ = nullptr;
  request->next = nullptr;
  return request;
}

}  // namespace aionbd::storage
