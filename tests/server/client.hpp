// A client with raw bytes on one end of a stream. It never blocks: while it waits, it calls `meanwhile`,
// which runs the loop that serves the other end, or just lets some time pass when others serve it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>

#include "tests/protocol/bytes.hpp"

namespace aionbd::tests {

class client {
 public:
  client(int fd, std::function<void()> meanwhile);
  client(client&& other) noexcept;
  client& operator=(client&& other) noexcept;
  ~client() { close(); }

  int fd() const { return fd_; }

  // All of it, or the test fails.
  void send(std::span<const std::byte> bytes);
  // What the stream takes now, without waiting.
  std::size_t send_now(std::span<const std::byte> bytes);

  // Exactly so many bytes, or the test fails.
  byte_vector receive(std::size_t length);
  // What one receive gives, at most `length`; nothing at the end of the stream.
  byte_vector receive_some(std::size_t length);
  // What is there now.
  byte_vector receive_now(std::size_t length);

  struct reply {
    std::uint32_t error = 0;
    byte_vector data;
    friend bool operator==(const reply&, const reply&) = default;
  };
  // As many simple replies as are named, in any order: cookie -> length of the data if there is no error.
  std::map<std::uint64_t, reply> receive_replies(const std::map<std::uint64_t, std::size_t>& expected);

  // True when the stream has ended and nothing was left to receive.
  bool is_at_end();

  void send_no_more();
  void close();

 private:
  void wait_for(const std::function<bool()>& condition);

  int fd_;
  std::function<void()> meanwhile_;
};

}  // namespace aionbd::tests
