// One request in flight, from its header to its reply: reused, never allocated per request.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "protocol/replies.hpp"
#include "protocol/requests.hpp"
#include "storage/aligned_buffer.hpp"
#include "storage/block_device.hpp"

namespace aionbd::server {

class session;

// What is to be sent: pieces of memory in order. They stay valid until the reply is out.
struct reply {
  // An error has three pieces, and for an error there must always be memory.
  reply() { pieces.reserve(3); }

  std::array<std::byte, protocol::reply_header_max> header{};
  std::vector<iovec> pieces;     // keeps its capacity, so that a reply of few pieces allocates nothing
  std::vector<std::byte> other;  // what is neither the first header nor the request's buffer
  std::size_t length = 0;        // bytes of all pieces

  void add(std::span<const std::byte> piece) {
    if (piece.empty()) return;
    // An iovec is for reading and for writing; sendmsg only reads.
    pieces.push_back({.iov_base = const_cast<std::byte*>(piece.data()), .iov_len = piece.size()});
    length += piece.size();
  }
  void clear() {
    pieces.clear();
    length = 0;
    // A long answer's memory is not kept for the short ones that follow; a mere {} would keep it.
    if (!other.empty()) other = std::vector<std::byte>();
  }
};

struct request_slot {
  session* home = nullptr;
  protocol::request asked;
  storage::operation work;
  storage::aligned_buffer buffer;
  std::byte* payload = nullptr;  // in the buffer: what a WRITE brings, or a READ takes away
  std::array<std::byte, protocol::block_status_payload_size> status_payload{};
  std::size_t charged = 0;  // bytes of the session's budget

  server::reply reply;
  request_slot* next = nullptr;  // in the queue of replies
};

// A session's slots: at most `count_max`, made when first needed, used again last in, first out.
class slot_pool {
 public:
  explicit slot_pool(std::size_t count_max) : count_max_(count_max) {}

  bool has_one() const { return !free_.empty() || slots_.size() < count_max_; }
  std::size_t in_use() const { return slots_.size() - free_.size(); }

  request_slot& take();
  void give_back(request_slot& slot) noexcept;

 private:
  std::size_t count_max_;
  std::vector<std::unique_ptr<request_slot>> slots_;
  std::vector<request_slot*> free_;
};

}  // namespace aionbd::server
