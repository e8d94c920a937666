// Accepts clients, deals them out to the loops, and stops in good order.
#pragma once

#include <atomic>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "server/admission.hpp"
#include "server/aio_loop.hpp"
#include "server/config.hpp"
#include "server/connection.hpp"
#include "server/exports.hpp"
#include "server/file_keeper.hpp"
#include "server/key_reader.hpp"
#include "server/listeners.hpp"
#include "server/rare_line.hpp"
#include "server/service_manager.hpp"
#include "server/tls_context.hpp"
#include "storage/offload_queue.hpp"

namespace aionbd::server {

class server {
 public:
  // Reads the keys and opens the listeners: throws tls_error, listen_error. `served` must outlive the server.
  // Throws std::runtime_error when the system has no room for another AIO queue.
  server(const config& settings, exports& served);
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  const std::vector<listener>& listeners() const { return listeners_; }
  const tls_keys* keys() const { return tls_.get(); }  // nothing without TLS

  // Through this, and in no other way, files are opened and removed once everything is set up. Not started:
  // the sandbox is its caller's business, before run(), which makes the threads.
  file_keeper& files() { return files_; }

  // Serves until SIGTERM or SIGINT, then drains: no new clients, what is in flight finishes, within the
  // configured time. A second signal ends the process at once. SIGHUP reads the keys again. Runs the first
  // loop on the calling thread. Throws std::runtime_error when the system has no room for the threads.
  void run();

 private:
  struct counted_loop : aio_loop {
    using aio_loop::aio_loop;
    std::atomic<unsigned> clients = 0;
  };

  void accept_next(listener& from);
  void start_accepting(listener& from);
  void on_accepted(transport::socket socket, counted_loop& home);
  void begin(transport::socket socket, const peer_address& who, counted_loop& home);
  void say_refused(const std::string& why);
  void pause_accepting(listener& from, const boost::system::error_code& why);
  counted_loop& least_busy();
  void wait_for_signal();
  void stop(int signal);
  boost::asio::io_context& make_loops();
  void start_threads(std::vector<std::jthread>& others);
  void cut_off_the_rest();
  void for_each_connection(void (connection::*act)());
  void on_ended(const peer_address& who, counted_loop& home);
  void give_memory_back_soon();
  void finish();
  [[noreturn]] void leave_at_once();

  const config settings_;
  exports& served_;
  admission admission_;  // clients that are left leave it when their loops go
  const bool has_terminal_;
  file_keeper files_;                    // outlives the listeners, whose files it removes
  const std::unique_ptr<tls_keys> tls_;  // outlives the connections
  storage::offload_queue blocking_;      // outlives the loops, whose queues use it
  std::deque<counted_loop> loops_;
  boost::asio::io_context& main_;
  std::vector<listener> listeners_;
  boost::asio::signal_set signals_;
  boost::asio::steady_timer drain_deadline_;
  boost::asio::steady_timer tidying_;
  bool will_tidy_ = false;
  service_manager manager_;
  rare_line refusals_, accept_failures_;  // of the first loop's thread
  std::atomic<bool> stopping_ = false;
  std::optional<key_reader> key_reader_;  // first to go: it uses the keys and the files
};

}  // namespace aionbd::server
