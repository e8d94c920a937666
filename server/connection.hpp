// One client's life: the handshake within its deadline, then the session, then the end. A coroutine on one
// loop; the connection lives as long as it runs.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "protocol/handshake.hpp"
#include "server/exports.hpp"
#include "server/fence.hpp"
#include "server/loop.hpp"
#include "server/session.hpp"
#include "server/tls_context.hpp"
#include "server/transport.hpp"

namespace aionbd::server {

struct connection_limits {
  std::chrono::seconds handshake_timeout{10};
  std::chrono::seconds dead_peer_timeout{90};
  protocol::handshake_limits handshake{};
  session_limits session;
};

class connection : public std::enable_shared_from_this<connection> {
 public:
  // `ended` is called from the loop's thread when the connection goes. Without `tls`, which outlives the
  // connection, there is none.
  connection(transport::socket socket, loop& home, exports& served, const connection_limits& limits,
             std::function<void()> ended, const tls_keys* tls = nullptr);
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
  ~connection();

  // Begins; call once, from the loop's thread, with the connection in a shared_ptr.
  void start();

  // Finish what is in flight, then go. From the loop's thread.
  void stop();

  // Go now: what is in flight in the kernel finishes, nothing is answered.
  void cut_off() { stream_.shut_down(); }

 private:
  boost::asio::awaitable<void> live();
  boost::asio::awaitable<bool> shake_hands();
  boost::asio::awaitable<void> transmit();
  void start_deadline(std::chrono::seconds after);

  loop& home_;
  exports& served_;
  const connection_limits limits_;
  std::function<void()> ended_;
  transport stream_;
  boost::asio::steady_timer deadline_;
  const tls_keys* tls_;
  protocol::handshake handshake_;
  bool stopping_ = false;
  std::vector<std::byte> read_ahead_;   // what came behind the handshake's last option
  std::optional<fence::member> place_;  // once an export is chosen
  std::unique_ptr<session> session_;    // once the handshake is over
};

}  // namespace aionbd::server
