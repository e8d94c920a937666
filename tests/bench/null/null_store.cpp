// The protocol path alone: connections as they are, on a store that forgets what is written and reads as
// zeroes. What is left to measure is receiving, parsing, answering and sending.
//
//   null_store unix PATH BYTES        null_store tcp PORT BYTES
//
// One loop, until it is told to end. For `compare`, beside the null stores of others.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <string>

#include "server/connection.hpp"
#include "server/exports.hpp"
#include "server/loop.hpp"

namespace {

namespace asio = boost::asio;
using namespace aionbd;

class null_queue final : public storage::io_queue {
 public:
  void runs_on(server::loop& home) { home_ = &home; }

  void submit(storage::io_request& request) override {
    request.state = storage::io_state::queued;
    if (request.op == storage::io_op::read || request.op == storage::io_op::buffered_read) {
      std::memset(request.memory, 0, request.length);
    }
    const bool transfers = request.memory != nullptr;
    request.result = transfers ? static_cast<std::int64_t>(request.length) : 0;
    post(request);
  }

  void flush() override {}

  std::size_t deliver_finished() override {
    std::size_t count = 0;
    storage::io_list ready = std::exchange(done_, {});
    while (storage::io_request* const request = ready.pop_front()) {
      request->state = storage::io_state::idle;
      request->hook(*request);
      ++count;
    }
    return count;
  }

  // Only this thread posts here: nothing is offloaded.
  void post(storage::io_request& request) override {
    if (done_.empty()) asio::post(home_->context, [this] { drain(); });
    done_.push_back(request);
  }

 private:
  void drain() {
    (void)deliver_finished();
    home_->completions.end();
  }

  server::loop* home_ = nullptr;
  storage::io_list done_;
};

template <typename Acceptor>
asio::awaitable<void> serve(Acceptor acceptor, server::loop& home, server::exports& served) {
  for (;;) {
    auto accepted = co_await acceptor.async_accept(asio::use_awaitable);
    server::transport::socket socket(std::move(accepted));
    std::make_shared<server::connection>(std::move(socket), home, served, server::connection_limits{}, [] {
    })->start();
  }
}

int run(const std::string& family, const std::string& where, std::uint64_t size) {
  null_queue queue;
  server::loop home(queue);
  queue.runs_on(home);
  server::exports served;
  served.add("", "", {.size = size, .direct_end = size, .alignment = 512}, {});

  asio::signal_set end(home.context, SIGTERM, SIGINT);
  end.async_wait([&](auto...) { home.context.stop(); });
  if (family == "unix") {
    asio::local::stream_protocol::acceptor acceptor(home.context, where);
    asio::co_spawn(home.context, serve(std::move(acceptor), home, served), asio::detached);
  } else {
    const auto port = static_cast<std::uint16_t>(std::stoul(where));
    asio::ip::tcp::acceptor acceptor(home.context, {asio::ip::address_v4::loopback(), port});
    asio::co_spawn(home.context, serve(std::move(acceptor), home, served), asio::detached);
  }
  home.context.run();
  std::fflush(nullptr);
  std::_Exit(0);  // Clients may still be there; nothing of theirs is worth an orderly end.
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: null_store unix PATH BYTES | null_store tcp PORT BYTES\n", stderr);
    return 2;
  }
  try {
    return run(argv[1], argv[2], std::stoull(argv[3]));
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "null_store: %s\n", failure.what());
    return 1;
  }
}
