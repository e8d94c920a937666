// TLS over a socket, whose other end is in the test's hands.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <optional>

#include "server/tls_context.hpp"
#include "server/transport.hpp"
#include "tests/server/tls_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
namespace asio = boost::asio;

namespace {

constexpr int steps_max = 1000;  // of the loop, which may not go round for ever

struct tls_ends {
  tls_ends() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    client_fd = ends[0];
    server::transport::socket served(context, asio::generic::stream_protocol(AF_UNIX, 0), ends[1]);
    stream.emplace(std::move(served));
    shake_hands();
  }
  ~tls_ends() { hang_up(); }

  void shake_hands() {
    bool is_secure = false;
    auto keys_of_server = std::make_shared<const server::tls_context>(keys.settings());
    auto upgrade = [this, &is_secure, &keys_of_server]() -> asio::awaitable<void> {
      is_secure = (co_await stream->upgrade(keys_of_server)).is_secure;
    };
    asio::co_spawn(context, upgrade, asio::detached);
    for (int i = 0; i < steps_max && !is_secure; ++i) {
      SSL_do_handshake(client.session());
      say(client.take_output());
      context.poll();
      client.give_input(hear());
    }
    REQUIRE(is_secure);
    context.restart();  // it has stopped, having had nothing to do
  }

  void say(const byte_vector& bytes) const {
    REQUIRE(::send(client_fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(bytes.size()));
  }
  byte_vector hear() const {
    byte_vector bytes(1 << 16);
    const ssize_t got = ::recv(client_fd, bytes.data(), bytes.size(), 0);
    bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    return bytes;
  }
  void hang_up() {
    if (client_fd >= 0) ::close(client_fd);
    client_fd = -1;
  }
  // First the socket, behind the stream's back, then the stream.
  void fill_up() {
    const byte_vector data(1 << 20);
    while (::send(stream->descriptor(), data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT) > 0) {
    }
    const iovec piece{const_cast<std::byte*>(data.data()), data.size()};
    std::error_code failure;
    REQUIRE(stream->send_now({&piece, 1}, failure) != 0);
    REQUIRE(stream->has_unsent());
  }
  // Each asks for one in return, and is paid for.
  void say_key_updates(int count) {
    for (int i = 0; i < count; ++i) {
      REQUIRE(SSL_key_update(client.session(), SSL_KEY_UPDATE_REQUESTED) == 1);
      client.say(byte_vector(1 << 16));
      const byte_vector bytes = client.take_output();
      for (std::size_t said = 0; said < bytes.size();) {
        const ssize_t taken = ::send(client_fd, &bytes[said], bytes.size() - said, MSG_NOSIGNAL);
        if (taken > 0) said += static_cast<std::size_t>(taken);
        if (context.poll() == 0 && taken < 0) return;  // it takes no more
      }
    }
  }

  test_keys keys;
  asio::io_context context;
  int client_fd = -1;
  std::optional<server::transport> stream;
  tls_client client{{.folder = keys.client("alice")}};
};

}  // namespace

TEST_CASE("answers_of_tls_itself_wait_for_a_client_that_reads_nothing_and_end_with_it") {
  tls_ends ends;
  ends.fill_up();
  byte_vector room(1 << 16);
  const server::transport::read_buffers into{asio::buffer(room)};
  std::size_t bytes = 0;
  std::error_code ended_by;
  auto read = [&]() -> asio::awaitable<void> {
    while (!ended_by) {
      const auto got = co_await ends.stream->read_some(into);
      bytes += got.bytes;
      ended_by = got.failure;
    }
  };
  asio::co_spawn(ends.context, read, asio::detached);
  constexpr int key_updates = 1000;
  ends.say_key_updates(key_updates);
  CHECK(bytes < key_updates * room.size());  // there was no room for so many answers
  CHECK_FALSE(ended_by);

  SECTION("until the client hangs up") {
    ends.hang_up();
  }
  SECTION("until the stream is shut down") {
    ends.stream->shut_down();
  }
  for (int steps = 0; steps < steps_max && !ended_by; ++steps) ends.context.poll_one();
  CHECK(ended_by);
}
