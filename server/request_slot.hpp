// One request in flight, from its header to its reply: reused, never allocated per request.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "protocol/replies.hpp"
#include "protocol/requests.hpp"
#include "storage/aligned_buffer.hpp"
#include "storage/block_device.hpp"

namespace aionbd::server {

class session;

struct request_slot {
  session* home = nullptr;
  protocol::request asked;
  storage::operation work;
  storage::aligned_buffer buffer;
  std::byte* payload = nullptr;  // in the buffer: what a WRITE brings, or a READ takes away
  std::size_t charged = 0;       // bytes of the session's budget

  std::array<std::byte, protocol::simple_reply_size> header{};
  std::size_t reply_payload = 0;  // bytes that follow the header
  request_slot* next = nullptr;   // in the queue of replies
};

// A session's slots: at most `count_max`, made when first needed, used again last in, first out.
class slot_pool {
 public:
  explicit slot_pool(std::size_t count_max) : count_max_(count_max) {}

  bool has_one() const { return !free_.empty() || slots_.size() < count_max_; }
  std::size_t in_use() const { return slots_.size() - free_.size(); }

  request_slot& take();
  void give_back(request_slot& slot);

 private:
  std::size_t count_max_;
  std::vector<std::unique_ptr<request_slot>> slots_;
  std::vector<request_slot*> free_;
};

}  // namespace aionbd::server
