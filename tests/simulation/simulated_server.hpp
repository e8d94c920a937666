// The server without sockets of the network, without a kernel's queue and without a disk: real connections on
// real loops, their queues on a disk in memory, their clients at the other ends of socket pairs. One thread,
// and nothing happens by itself: whoever steps it decides what comes next, so the same steps are the same
// run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "server/connection.hpp"
#include "server/exports.hpp"
#include "server/loop.hpp"
#include "tests/protocol/bytes.hpp"
#include "tests/storage/fake_queue.hpp"

namespace aionbd::tests {

// The client's end of a stream. Never waits.
class client_end {
 public:
  explicit client_end(int fd) : fd_(fd) {}
  client_end(client_end&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  client_end& operator=(client_end&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~client_end() { close(); }

  // How many of these bytes the stream took.
  std::size_t say(std::span<const std::byte> bytes);
  // What is there, at most `length`.
  byte_vector hear(std::size_t length);
  // The server has ended the stream, and all it said was heard.
  bool is_at_end() const { return is_at_end_; }

  void say_no_more();
  void close();
  bool is_closed() const { return fd_ < 0; }

 private:
  int fd_;
  bool is_at_end_ = false;
};

struct simulated_loop {
  explicit simulated_loop(storage::fake_disk& disk) : queue(disk), loop(queue, 0) {}

  // One thing that Asio has ready; false when there is none.
  bool run_one();
  // Delivers what the disk is through with; false when there was nothing.
  bool drain();

  storage::fake_queue queue;
  server::loop loop;
};

class simulated_server {
 public:
  using choice = std::function<std::uint64_t(std::uint64_t)>;

  simulated_server(const storage::geometry& shape, std::size_t loop_count, choice choose,
                   const server::connection_limits& limits = patient());
  ~simulated_server();  // every connection must have ended

  // Limits of time that no run comes to, for time is nothing that the same steps would repeat.
  static server::connection_limits patient();

  struct client {
    client_end end;
    std::weak_ptr<server::connection> served;
  };
  // A client on that loop; the server's end holds about so many bytes that were not heard, 0 for the usual.
  client connect(std::size_t loop_number, int send_buffer = 0);

  const protocol::export_info& info() const { return exports.infos().front(); }
  storage::block_device& device() { return exports.device_of(info()); }
  std::size_t connections() const { return connections_; }

  // Everything that can happen happens, the disk's steps in the order that was chosen; false if nothing
  // could.
  bool settle();
  // What must be true once all connections have ended: nothing out, nothing under way. Empty, or what is not.
  std::string leftovers() const;

  storage::fake_disk disk;
  server::exports exports;
  std::deque<simulated_loop> loops;

 private:
  const server::connection_limits limits_;
  std::size_t connections_ = 0;
};

// What a handshake with these exports comes to when the client says this from its beginning on.
struct agreement {
  byte_vector answered;      // what the server says
  std::size_t consumed = 0;  // bytes of the handshake; requests follow
  bool enters_transmission = false;
  protocol::terms agreed;  // if it does
};
[[nodiscard]] agreement agreement_on(std::span<const std::byte> said,
                                     std::span<const protocol::export_info> exports);

}  // namespace aionbd::tests
