// A client of a real server that keeps the protocol: shakes hands, asks, and reads the replies. After the
// handshake it never waits: what it says and hears moves when move() is called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "protocol/terms.hpp"
#include "storage/file_descriptor.hpp"
#include "tests/simulation/reply_reader.hpp"

namespace aionbd::tests {

class socket_client {
 public:
  // Connects to a Unix socket and shakes hands for the default export. Throws std::runtime_error when there
  // is nobody, or somebody who says something else.
  socket_client(const std::string& path, protocol::reply_mode mode);
  socket_client(const socket_client&) = delete;
  socket_client& operator=(const socket_client&) = delete;

  protocol::reply_mode mode() const { return agreed_.replies; }
  std::uint64_t size() const { return disk_.size; }

  // To be said, behind what was not said yet. The cookie is the client's to choose: it is set, and returned.
  std::uint64_t ask(protocol::request what, std::span<const std::byte> payload = {});

  // Says and hears what is possible now; false when the server has gone.
  bool move();
  int fd() const { return fd_.get(); }
  bool has_more_to_say() const { return !to_say_.empty(); }

  std::vector<answer> take_answers() { return reader_.take_answers(); }
  const std::string& complaint() const { return reader_.complaint(); }

 private:
  void shake_hands(protocol::reply_mode mode);
  byte_vector receive(std::size_t length);

  storage::file_descriptor fd_;
  protocol::export_info disk_;
  protocol::terms agreed_;
  reply_reader reader_{agreed_};
  byte_vector to_say_;
  std::uint64_t last_cookie_ = 0;
};

}  // namespace aionbd::tests
