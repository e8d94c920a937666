#include "server/transport.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <cstring>
#include <optional>

#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
namespace asio = boost::asio;

namespace {

int option_of(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  REQUIRE(::getsockopt(fd, level, name, &value, &length) == 0);
  return value;
}

// The accepted end of a TCP connection, as the server makes it, and its client.
struct tcp_ends {
  explicit tcp_ends(const asio::ip::tcp::endpoint& address) {
    asio::ip::tcp::acceptor acceptor(context, address);
    peer.connect(acceptor.local_endpoint());
    served.emplace(acceptor.accept());
    fd = served->native_handle();
  }

  asio::io_context context;
  asio::ip::tcp::socket peer{context};
  std::optional<server::transport::socket> served;
  int fd = -1;
};

bool has_ipv6() {
  asio::io_context context;
  asio::ip::tcp::acceptor acceptor(context);
  boost::system::error_code failure;
  acceptor.open(asio::ip::tcp::v6(), failure);
  if (!failure) acceptor.bind({asio::ip::address_v6::loopback(), 0}, failure);
  return !failure;
}

}  // namespace

TEST_CASE("rule 37: tcp_connections_are_prompt_and_a_dead_peer_is_noticed") {
  tcp_ends ends({asio::ip::address_v4::loopback(), 0});
  const server::transport under_test(std::move(*ends.served));
  CHECK(option_of(ends.fd, IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(option_of(ends.fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(option_of(ends.fd, IPPROTO_TCP, TCP_KEEPIDLE) == 60);
  CHECK(option_of(ends.fd, IPPROTO_TCP, TCP_KEEPINTVL) == 10);
  CHECK(option_of(ends.fd, IPPROTO_TCP, TCP_KEEPCNT) == 3);
  CHECK(option_of(ends.fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 90'000);
}

// getsockopt gives twice what was asked for: the kernel counts its own book-keeping.
TEST_CASE("a_tcp_peer_on_this_machine_gets_a_send_buffer_that_stays_in_the_cache") {
  tcp_ends ends({asio::ip::address_v4::loopback(), 0});
  CHECK(option_of(ends.fd, SOL_SOCKET, SO_SNDBUF) != 2 * (64 << 10));
  const server::transport under_test(std::move(*ends.served));
  CHECK(option_of(ends.fd, SOL_SOCKET, SO_SNDBUF) == 2 * (64 << 10));
}

TEST_CASE("a_tcp_peer_is_called_by_its_address_and_port") {
  tcp_ends ends({asio::ip::address_v4::loopback(), 0});
  const server::transport under_test(std::move(*ends.served));
  CHECK(under_test.peer() == "127.0.0.1:" + std::to_string(ends.peer.local_endpoint().port()));
}

TEST_CASE("an_ipv6_peers_address_is_in_brackets") {
  if (!has_ipv6()) return;
  tcp_ends ends({asio::ip::address_v6::loopback(), 0});
  const server::transport under_test(std::move(*ends.served));
  CHECK(under_test.peer() == "[::1]:" + std::to_string(ends.peer.local_endpoint().port()));
}

TEST_CASE("a_unix_peer_is_called_by_its_process") {
  served_loop on;
  stream_ends ends = on.connect();
  const server::transport under_test(std::move(ends.served));
  CHECK(under_test.peer() == "unix client, process " + std::to_string(::getpid()));
}

TEST_CASE("a_peer_that_is_gone_before_it_could_be_looked_at_still_has_a_name") {
  tcp_ends ends({asio::ip::address_v4::loopback(), 0});
  ends.peer.set_option(asio::socket_base::linger(true, 0));
  ends.peer.close();  // a reset
  const server::transport under_test(std::move(*ends.served));
  CHECK(under_test.peer() == "a client that has gone");
}

TEST_CASE("send_now_takes_what_fits_and_says_how_much") {
  served_loop on;
  stream_ends ends = on.connect();
  server::transport under_test(std::move(ends.served));
  const byte_vector head = pattern(16), body = pattern(4 * MiB, 2);
  const iovec pieces[] = {{const_cast<std::byte*>(head.data()), head.size()},
                          {const_cast<std::byte*>(body.data()), body.size()}};
  std::error_code failure;
  const std::size_t sent = under_test.send_now(pieces, failure);
  CHECK_FALSE(failure);
  CHECK(sent > head.size());
  CHECK(sent < head.size() + body.size());
  CHECK(under_test.send_now(pieces, failure) == 0);  // full, which is no failure
  CHECK_FALSE(failure);
  byte_vector expected = joined(head, body);
  expected.resize(sent);
  CHECK((ends.peer.receive(sent) == expected));
}

TEST_CASE("send_now_to_a_closed_peer_fails_without_a_signal") {
  served_loop on;
  stream_ends ends = on.connect();
  server::transport under_test(std::move(ends.served));
  ends.peer.close();
  std::byte one{};
  const iovec piece{&one, 1};
  std::error_code failure;
  CHECK(under_test.send_now({&piece, 1}, failure) == 0);
  CHECK(failure == std::errc::broken_pipe);
}

TEST_CASE("read_some_fills_its_buffers_in_order_and_reports_the_end") {
  served_loop on;
  stream_ends ends = on.connect();
  server::transport under_test(std::move(ends.served));
  byte_vector first(10), second(100);
  std::vector<server::transport::read_result> results;
  auto reading = [&]() -> asio::awaitable<void> {
    for (int i = 0; i < 2; ++i) {
      results.push_back(co_await under_test.read_some({asio::buffer(first), asio::buffer(second)}));
    }
  };
  asio::co_spawn(on.loop.context, std::move(reading), asio::detached);
  ends.peer.send(pattern(25));
  on.settle();
  REQUIRE(results.size() == 1);
  CHECK(results[0].bytes == 25);
  CHECK_FALSE(results[0].failure);
  second.resize(15);
  CHECK(joined(first, second) == pattern(25));
  ends.peer.close();
  on.settle();
  REQUIRE(results.size() == 2);
  CHECK(results[1].failure == std::error_code(asio::error::make_error_code(asio::error::eof)));
}

TEST_CASE("write_writes_all_of_it_however_slowly_the_peer_reads") {
  served_loop on;
  stream_ends ends = on.connect();
  server::transport under_test(std::move(ends.served));
  const byte_vector content = pattern(3 * MiB);
  std::optional<std::error_code> result;
  auto writing = [&]() -> asio::awaitable<void> { result = co_await under_test.write(content); };
  asio::co_spawn(on.loop.context, std::move(writing), asio::detached);
  on.settle();
  CHECK_FALSE(result);
  CHECK((ends.peer.receive(content.size()) == content));
  on.settle();
  REQUIRE(result);
  CHECK_FALSE(*result);
}

TEST_CASE("shutting_down_wakes_whoever_reads_and_may_be_done_again") {
  served_loop on;
  stream_ends ends = on.connect();
  server::transport under_test(std::move(ends.served));
  byte_vector space(10);
  std::optional<server::transport::read_result> result;
  auto reading = [&]() -> asio::awaitable<void> {
    const server::transport::read_buffers target{asio::buffer(space)};
    result = co_await under_test.read_some(target);
  };
  asio::co_spawn(on.loop.context, std::move(reading), asio::detached);
  on.settle();
  CHECK_FALSE(result);
  under_test.shut_down();
  under_test.shut_down();
  on.settle();
  REQUIRE(result);
  CHECK(result->failure);
  CHECK(ends.peer.is_at_end());
}
