// The bytes that arrived and were not yet looked at, of one connection.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

namespace aionbd::server {

class receive_buffer {
 public:
  // Large enough that a burst of small writes comes with one system call.
  static constexpr std::size_t capacity = std::size_t{256} << 10;

  std::span<const std::byte> bytes() const { return {memory_.get() + begin_, end_ - begin_}; }
  bool empty() const { return begin_ == end_; }

  void consume(std::size_t count) {
    begin_ += count;
    assert(begin_ <= end_);
    if (empty()) begin_ = end_ = 0;
  }

  // Where the next bytes may be put: at most `length_max`, never nothing, as less than one request's header
  // is left over whenever more is read. What bytes() viewed may move.
  std::span<std::byte> space(std::size_t length_max = capacity) {
    if (begin_ != 0) {
      std::memmove(memory_.get(), memory_.get() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    return {memory_.get() + end_, std::min(length_max, capacity - end_)};
  }
  void filled(std::size_t count) {
    end_ += count;
    assert(end_ <= capacity);
  }

 private:
  // Left uninitialised: memory that no client's bytes reach is never touched.
  std::unique_ptr<std::byte[]> memory_ = std::make_unique_for_overwrite<std::byte[]>(capacity);
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace aionbd::server
