// TLS over a socket, whose other end is in the test's hands.
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <optional>

#include "server/receive_buffer.hpp"
#include "server/tls_context.hpp"
#include "server/transport.hpp"
#include "tests/server/tls_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
namespace asio = boost::asio;

namespace {

constexpr int steps_max = 1000;  // of the loop, which may not go round for ever

// Of TLS 1.3: a full record's data; and its header, the kind of its content, and what authenticates it.
constexpr std::size_t record_data = std::size_t{16} << 10;
constexpr std::size_t record_overhead = 5 + 1 + 16;
constexpr std::size_t key_update_length = record_overhead + 4 + 1;
// What pays for a message of TLS's own.
constexpr std::size_t price = std::size_t{64} << 10;

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
  // First the socket, behind the stream's back, then the stream: how many bytes wait in there.
  std::size_t fill_up() {
    const byte_vector data(1 << 20);
    while (::send(stream->descriptor(), data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT) > 0) {
    }
    const iovec piece{const_cast<std::byte*>(data.data()), data.size()};
    std::error_code failure;
    const std::size_t taken = stream->send_now({&piece, 1}, failure);
    REQUIRE(taken != 0);
    REQUIRE(stream->has_unsent());
    return taken + (taken + record_data - 1) / record_data * record_overhead;
  }
  // Each asks for one in return, and is paid for. How many bytes the stream has taken from its socket, when
  // that takes no more or all was said.
  std::size_t say_key_updates(std::size_t count) {
    std::size_t all_said = 0;
    bool takes_more = true;
    for (std::size_t i = 0; i < count && takes_more; ++i) {
      REQUIRE(SSL_key_update(client.session(), SSL_KEY_UPDATE_REQUESTED) == 1);
      client.say(byte_vector(price));
      const byte_vector bytes = client.take_output();
      for (std::size_t said = 0; said < bytes.size() && takes_more;) {
        const ssize_t taken = ::send(client_fd, &bytes[said], bytes.size() - said, MSG_NOSIGNAL);
        if (taken > 0) said += static_cast<std::size_t>(taken);
        if (taken > 0) all_said += static_cast<std::size_t>(taken);
        takes_more = context.poll() != 0 || taken > 0;
      }
    }
    for (int steps = 0; steps < steps_max && context.poll() != 0; ++steps) {
    }
    int in_socket = -1;
    REQUIRE(::ioctl(stream->descriptor(), FIONREAD, &in_socket) == 0);
    return all_said - static_cast<std::size_t>(in_socket);
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
  const std::size_t answers = (server::receive_buffer::capacity - ends.fill_up()) / key_update_length;
  byte_vector room(price);
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
  // So many of them have room, and that of one more may be due. What is said then fills one buffer, and then
  // the socket.
  ends.say_key_updates(answers);
  CHECK(bytes == answers * price);
  ends.say_key_updates(2);
  const std::size_t at_limit = bytes;
  CHECK(at_limit <= (answers + 1) * price);
  const std::size_t taken = ends.say_key_updates(1000);
  CHECK(bytes == at_limit);
  CHECK(taken <= server::receive_buffer::capacity);
  CHECK_FALSE(ended_by);

  SECTION("until the client reads") {
    for (int steps = 0; steps < steps_max && (ends.context.poll() != 0 || !ends.hear().empty()); ++steps) {
    }
    CHECK(bytes > at_limit);
    ends.hang_up();
  }
  SECTION("until the client hangs up") {
    ends.hang_up();
  }
  SECTION("until the stream is shut down") {
    ends.stream->shut_down();
  }
  for (int steps = 0; steps < steps_max && !ended_by; ++steps) ends.context.poll_one();
  CHECK(ended_by);
}
