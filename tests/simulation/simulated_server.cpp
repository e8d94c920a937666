#include "tests/simulation/simulated_server.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <system_error>

#include "protocol/handshake.hpp"
#include "tests/support/memory_of.hpp"

namespace aionbd::tests {

std::size_t client_end::say(std::span<const std::byte> bytes) {
  const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent < 0 ? 0 : static_cast<std::size_t>(sent);
}

byte_vector client_end::hear(std::size_t length) {
  static std::array<std::byte, std::size_t{64} << 10U> room;
  const ssize_t received = ::recv(fd_, room.data(), std::min(length, room.size()), MSG_DONTWAIT);
  is_at_end_ = received == 0 || (received < 0 && errno != EAGAIN);
  return {room.begin(), room.begin() + std::max<ssize_t>(received, 0)};
}

void client_end::say_no_more() {
  ::shutdown(fd_, SHUT_WR);
}

void client_end::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool simulated_loop::run_one() {
  const memory_of whoever_runs(memory_of::loop);
  if (loop.context.stopped()) loop.context.restart();
  return loop.context.poll_one() != 0;
}

bool simulated_loop::drain() {
  const memory_of whoever_runs(memory_of::completions);
  const bool any = queue.drain() != 0;
  loop.completions.end();
  return any;
}

simulated_server::simulated_server(const storage::geometry& shape, std::size_t loop_count, choice choose,
                                   const server::connection_limits& limits)
    : disk(shape, std::move(choose)), limits_(limits) {
  exports.add("", "", shape, disk.file());
  for (std::size_t i = 0; i < loop_count; ++i) loops.emplace_back(disk);
}

simulated_server::~simulated_server() {
  if (connections_ != 0) std::abort();
}

server::connection_limits simulated_server::patient() {
  return {.handshake_timeout = std::chrono::hours(1),
          .session = {.linger = std::chrono::hours(1), .patience_with_the_gone = std::chrono::hours(1)}};
}

simulated_server::client simulated_server::connect(std::size_t loop_number, int send_buffer) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw std::system_error(errno, std::system_category(), "socketpair");
  }
  client_end ours(ends[0]);
  server::loop& home = loops.at(loop_number).loop;
  server::transport::socket theirs(home.context, boost::asio::generic::stream_protocol(AF_UNIX, 0), ends[1]);
  if (send_buffer != 0) theirs.set_option(boost::asio::socket_base::send_buffer_size(send_buffer));
  const auto made = std::make_shared<server::connection>(std::move(theirs), home, exports, limits_,
                                                         [this] { --connections_; });
  ++connections_;
  made->start();
  return {std::move(ours), made};
}

bool simulated_server::settle() {
  bool any = false;
  for (bool more = true; more;) {
    more = disk.step();
    for (simulated_loop& each : loops) {
      while (each.run_one()) more = true;
      if (each.drain()) more = true;
    }
    any |= more;
  }
  return any;
}

std::string simulated_server::leftovers() const {
  if (connections_ != 0) return "a connection that does not end";
  for (const simulated_loop& each : loops) {
    if (each.queue.outstanding() != 0) return "I/O that nobody waits for";
    if (each.loop.buffers.buffers_out() != 0) return "a buffer that was not given back";
    if (!each.loop.connections.empty()) return "a connection that was not taken out of its loop";
  }
  if (disk.in_flight() != 0) return "I/O in flight";
  const auto broken = disk.violations();
  return broken.empty() ? std::string() : "a rule of the disk: " + broken.front();
}

agreement agreement_on(std::span<const std::byte> said, std::span<const protocol::export_info> exports) {
  using step = protocol::handshake::step;
  protocol::handshake shaken(exports, {},
                             {.structured_replies = true, .metadata = true, .extended_headers = true});
  agreement found;
  for (;;) {
    const auto action = shaken.resume(said.subspan(found.consumed));
    found.consumed += action.consumed;
    const auto output = shaken.output();
    found.answered.insert(found.answered.end(), output.begin(), output.end());
    if (action.what == step::send) continue;
    found.enters_transmission = action.what == step::enter_transmission;
    found.agreed = shaken.agreed();
    return found;
  }
}

}  // namespace aionbd::tests
