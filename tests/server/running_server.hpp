// The whole server in this process: its loops on threads of their own, clients over a Unix socket.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/config.hpp"
#include "server/exports.hpp"
#include "server/server.hpp"
#include "tests/server/client.hpp"
#include "tests/server/log_lines.hpp"
#include "tests/server/temporary_folder.hpp"

namespace aionbd::tests {

inline constexpr std::uint64_t served_size = std::uint64_t{16} << 20;

struct server_settings {
  unsigned threads = 1;
  unsigned connections_max = 64;
  unsigned per_address_max = 64;
  std::chrono::seconds drain_timeout{10};
};

class running_server {
 public:
  explicit running_server(const server_settings& settings = {});
  running_server(const running_server&) = delete;
  running_server& operator=(const running_server&) = delete;
  ~running_server();

  log_lines log;

 private:
  temporary_folder files_, sockets_{temporary_folder::place::system};

 public:
  const std::string file = files_.path_of("served");
  const std::string socket = sockets_.path_of("a.sock");

  // A connected client that has said nothing yet.
  client connect();
  // One that has shaken hands; the test fails if the server does not let it in.
  client enter();

  static void signal(int number);
  // True when run() has returned, within the patience of a test.
  bool stops();

  // How many clients each loop has, in no particular order: connected sockets by the epoll that watches them.
  std::vector<std::size_t> clients_of_loops() const;

 private:
  server::exports exports_;
  std::unique_ptr<server::server> server_;
  std::atomic<bool> is_running_ = true;
  std::thread thread_;
};

// Waits, without a loop to run in the meantime, until the condition holds; false when it does not.
bool eventually(const std::function<bool()>& condition);

}  // namespace aionbd::tests
