// One file, served by one loop on the test's own thread: the loop runs only while a test lets it, so that a
// test may look at everything in between.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>

#include "server/aio_loop.hpp"
#include "server/exports.hpp"
#include "server/session.hpp"
#include "server/transport.hpp"
#include "storage/offload_queue.hpp"
#include "tests/server/client.hpp"
#include "tests/server/log_lines.hpp"
#include "tests/server/temporary_folder.hpp"

namespace aionbd::tests {

inline constexpr std::uint64_t KiB = 1024, MiB = 1024 * KiB, GiB = 1024 * MiB;

// The two ends of a new Unix stream.
struct stream_ends {
  client peer;
  server::transport::socket served;
};

struct served_file {
  std::uint64_t size = MiB;
  bool read_only = false;
  std::string description{};
  storage::aio_queue::submit_call submit = nullptr;  // instead of io_submit
};

class served_loop {
 public:
  explicit served_loop(const served_file& what = {});

  log_lines log;

 private:
  temporary_folder folder_;

 public:
  const std::string path;
  server::exports exports;
  storage::offload_queue blocking{2};
  server::aio_loop loop;

  const protocol::export_info& info() const { return exports.infos().front(); }

  // Lets the loop run until nothing happens any more, timers excepted.
  void settle();
  // Lets it run until the condition holds: false when it does not within `at_most`.
  template <typename Condition>
  bool run_until(Condition condition, std::chrono::milliseconds at_most = std::chrono::seconds(20)) {
    const auto deadline = std::chrono::steady_clock::now() + at_most;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      run_a_little();
    }
    return true;
  }

  // SOCK_SEQPACKET keeps the borders of what each end sends: one message for each send.
  stream_ends connect(int type = SOCK_STREAM);

 private:
  void run_a_little();
};

struct session_settings {
  server::session_limits limits{};
  bool block_sizes_requested = false;
  int socket_type = SOCK_STREAM;
  byte_vector read_ahead{};
  int send_buffer = 0;  // SO_SNDBUF of the server's end
  protocol::reply_mode replies = protocol::reply_mode::simple;
  bool allocation_selected = false;
};

// A session and its client.
class served_session {
 public:
  explicit served_session(served_loop& on, const session_settings& settings = {});
  served_session(const served_session&) = delete;
  served_session& operator=(const served_session&) = delete;
  ~served_session();  // lets a session that was not ended come to its end

  client peer;
  server::session& session() { return *session_; }

  bool is_over() const { return why_.has_value(); }
  // Waits for the end, after which the session's memory is gone: why it ended.
  std::error_code why();

 private:
  served_session(served_loop& on, const session_settings& settings, stream_ends ends);

  served_loop& on_;
  server::transport stream_;
  server::fence::member place_;
  protocol::terms agreed_;
  std::unique_ptr<server::session> session_;
  std::optional<std::error_code> why_;
  std::exception_ptr escaped_;
};

}  // namespace aionbd::tests
