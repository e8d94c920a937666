#include "server/server.hpp"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "server/descriptor_limit.hpp"
#include "server/log.hpp"

namespace aionbd::server {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// Buffered reads and writes block their thread for as long as the disk takes; the few calls that are
// offloaded beside direct I/O do not.
constexpr unsigned buffered_threads = 32;

// How long to leave a listener alone that has no file descriptors or memory for its next client.
constexpr std::chrono::milliseconds accept_pause{100};

// What requests that are in the kernel, or a long zeroing, get once their client was cut off at a stop.
constexpr std::chrono::seconds cut_off_grace{5};

// How long after a client has left its memory goes back to the system, together with that of others.
constexpr std::chrono::seconds tidy_pause{1};

connection_limits limits_of(const config& settings) {
  return {.handshake_timeout = settings.handshake_timeout,
          .dead_peer_timeout = settings.dead_peer_timeout,
          .handshake = settings.handshake,
          .session = {.requests_max = settings.queue_depth,
                      .in_flight_bytes_max = settings.in_flight_bytes_max,
                      .linger = settings.drain_timeout}};
}

// What a handler has no memory for is left undone; that of others goes on.
void run_to_the_end(asio::io_context& loop) {
  for (;;) {
    try {
      loop.run();
      return;
    } catch (const std::bad_alloc&) {
      spdlog::error("no memory for something that was to be done; going on without it");
    }
  }
}

}  // namespace

server::server(const config& settings, exports& served)
    : settings_(settings),
      served_(served),
      admission_({.connections_max = settings.connections_max,
                  .per_address_max = settings.per_address_max,
                  .allowed = settings.allow}),
      has_terminal_(::isatty(STDERR_FILENO) != 0),
      tls_(settings.tls.policy == protocol::tls_policy::off
               ? nullptr
               : std::make_unique<tls_keys>(settings.tls, &files_)),
      blocking_(0),
      main_(make_loops()),
      listeners_(open_listeners(main_, settings, files_)),
      signals_(main_, SIGTERM, SIGINT, SIGHUP),
      drain_deadline_(main_),
      tidying_(main_) {
  allow_descriptors(settings.connections_max, settings.threads);
}

asio::io_context& server::make_loops() {
  try {
    while (loops_.size() < settings_.threads) loops_.emplace_back(blocking_);
  } catch (const std::system_error& failure) {
    if (failure.code() != std::errc::resource_unavailable_try_again) throw;
    throw std::runtime_error(
        "no room for another AIO queue: raise it with sysctl fs.aio-max-nr (see fs.aio-nr for what is used)");
  }
  return loops_.front().context;
}

void server::run() {
  std::vector<std::jthread> others;
  start_threads(others);
  wait_for_signal();
  for (auto& from : listeners_) accept_next(from);
  manager_.tell("READY=1");
  run_to_the_end(main_);
  others.clear();
  // A file system that keeps the reader of keys does not keep the server, which has nothing left to do.
  if (key_reader_ && key_reader_->is_busy()) std::_Exit(EXIT_SUCCESS);
}

// Here and not earlier, for the sandbox is the thread's that made it, and of those made later.
void server::start_threads(std::vector<std::jthread>& others) {
  const auto give_up = [this](const std::string& why) {
    for (auto& each : loops_) each.context.stop();  // or those that have begun would never end
    throw std::runtime_error("cannot start a thread: " + why);
  };
  try {
    blocking_.add_threads(settings_.direct ? storage::offload_queue::threads_default : buffered_threads);
    if (tls_) key_reader_.emplace(*tls_);
    for (auto& each : loops_) {
      if (&each.context != &main_) others.emplace_back([&each] { run_to_the_end(each.context); });
    }
  } catch (const std::system_error& failure) {
    give_up(failure.code().message());
  } catch (const boost::system::system_error& failure) {
    give_up(failure.code().message());
  }
}

void server::accept_next(listener& from) {
  for (;;) {
    try {
      return start_accepting(from);
    } catch (const std::bad_alloc&) {
      // Not even a timer may be to be had, and a listener that is left alone would never be heard again.
      std::this_thread::sleep_for(accept_pause);
    }
  }
}

void server::start_accepting(listener& from) {
  counted_loop& home = least_busy();
  from.acceptor.async_accept(home.context,
                             [this, &from, &home](error_code failure, transport::socket socket) {
                               if (failure == asio::error::operation_aborted || stopping_) return;
                               if (failure == asio::error::connection_aborted) return accept_next(from);
                               if (failure) return pause_accepting(from, failure);
                               on_accepted(std::move(socket), home);
                               accept_next(from);
                             });
}

// Out of descriptors or memory: what is connected goes on, and trying again at once would only spin.
void server::pause_accepting(listener& from, const error_code& why) {
  say_rarely(accept_failures_, spdlog::level::err, "cannot accept on {}: {}; trying again in a moment",
             from.address, why.message());
  try {
    const auto timer = std::make_shared<asio::steady_timer>(main_, accept_pause);
    timer->async_wait([this, timer, &from](error_code) {
      if (!stopping_) accept_next(from);
    });
  } catch (const std::bad_alloc&) {
    std::this_thread::sleep_for(accept_pause);
    accept_next(from);
  }
}

void server::on_accepted(transport::socket socket, counted_loop& home) {
  const auto who = peer_of(socket.native_handle());
  if (!who) return;  // gone already
  try {
    if (const auto refusal = admission_.enter(*who)) return say_refused(*refusal);
  } catch (const std::bad_alloc&) {
    return say_refused("no memory");
  }
  ++home.clients;
  try {
    // From here on everything happens on the connection's own loop.
    asio::post(home.context, [this, &home, who = *who, socket = std::move(socket)]() mutable {
      begin(std::move(socket), who, home);
    });
  } catch (const std::bad_alloc&) {
    on_ended(*who, home);
    say_refused("no memory");
  }
}

void server::begin(transport::socket socket, const peer_address& who, counted_loop& home) {
  std::shared_ptr<connection> client;
  try {
    client = std::make_shared<connection>(
        std::move(socket), home, served_, limits_of(settings_), [this, who, &home] { on_ended(who, home); },
        tls_.get());
  } catch (const std::bad_alloc&) {
    // It never came to be, and so does not count itself out.
    on_ended(who, home);
    return;
  }
  try {
    client->start();
    if (stopping_) client->stop();
  } catch (const std::bad_alloc&) {
    spdlog::error("no memory for a client");
  }
}

void server::say_refused(const std::string& why) {
  say_rarely(refusals_, spdlog::level::warn, "refused a client: {}", why);
}

server::counted_loop& server::least_busy() {
  return *std::min_element(loops_.begin(), loops_.end(),
                           [](const auto& one, const auto& other) { return one.clients < other.clients; });
}

void server::wait_for_signal() {
  signals_.async_wait([this](error_code failure, int signal) {
    if (failure) return;
    // With nothing to read again, SIGHUP may be what it was made for: the terminal is gone.
    if (signal == SIGHUP && (tls_ || !has_terminal_)) {
      if (key_reader_) {
        key_reader_->read_again_soon();
      } else {
        spdlog::info("SIGHUP: without TLS there are no keys to read again");
      }
      return wait_for_signal();
    }
    if (stopping_) {
      spdlog::warn("told to stop a second time: leaving at once");
      leave_at_once();
    }
    stop(signal);
    wait_for_signal();
  });
}

void server::stop(int signal) {
  spdlog::info("{}: finishing what is in flight for {} clients, at most {} s", ::strsignal(signal),
               admission_.present(), settings_.drain_timeout.count());
  manager_.tell("STOPPING=1");
  stopping_ = true;
  error_code ignored;
  for (auto& from : listeners_) from.acceptor.close(ignored);

  for_each_connection(&connection::stop);
  drain_deadline_.expires_after(settings_.drain_timeout);
  drain_deadline_.async_wait([this](error_code cancelled) {
    if (!cancelled) cut_off_the_rest();
  });
  // Behind the accepts that were just cancelled: they hold sockets of other loops, which must still be there.
  if (admission_.present() == 0) asio::post(main_, [this] { finish(); });
}

void server::cut_off_the_rest() {
  if (admission_.present() == 0) return finish();
  spdlog::warn("{} clients did not finish in time and are cut off", admission_.present());
  for_each_connection(&connection::cut_off);
  drain_deadline_.expires_after(cut_off_grace);
  drain_deadline_.async_wait([this](error_code cancelled) {
    if (cancelled) return;
    // Nobody waits for these any more; what was never acknowledged is not lost by leaving.
    spdlog::error("requests of {} clients are still with the disk: leaving without them",
                  admission_.present());
    leave_at_once();
  });
}

void server::for_each_connection(void (connection::*act)()) {
  for (auto& each : loops_) {
    asio::post(each.context, [&each, act] {
      // A copy: ending a connection takes it out of the set.
      const auto present = each.connections;
      for (connection* const client : present) (client->*act)();
    });
  }
}

void server::on_ended(const peer_address& who, counted_loop& home) {
  --home.clients;
  const bool was_last = admission_.leave(who) == 0;
  try {
    if (was_last && stopping_) asio::post(main_, [this] { finish(); });
    asio::post(main_, [this] { give_memory_back_soon(); });
  } catch (const std::bad_alloc&) {
    // The next one that leaves will do; and at a stop, the deadline.
  }
}

// The memory of a crowd that has left is kept by the C library in pieces, for a crowd that may never come
// again.
void server::give_memory_back_soon() {
  if (will_tidy_) return;
  tidying_.expires_after(tidy_pause);
  tidying_.async_wait([this](error_code) {
    will_tidy_ = false;
    ::malloc_trim(0);
  });
  will_tidy_ = true;
}

void server::finish() {
  if (admission_.present() != 0) return;
  // Once more to the end of the queue: whoever posted this from another loop may have overtaken the cancelled
  // accepts, and these hold sockets of loops that go before the queue does.
  asio::post(main_, [this] {
    // The files of Unix sockets go only now: a file system that has hung holds up nobody's requests any more.
    listeners_.clear();
    spdlog::info("stopped");
    for (auto& each : loops_) each.context.stop();
  });
}

void server::leave_at_once() {
  listeners_.clear();
  std::_Exit(EXIT_FAILURE);
}

}  // namespace aionbd::server
