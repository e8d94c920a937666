#include "server/transport.hpp"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "server/tls_stream.hpp"

namespace aionbd::server {

namespace {

namespace asio = boost::asio;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

// Of the time until a silent peer is given up, two thirds pass before it is asked for a sign of life; the
// rest is divided among the probes. Data that it does not acknowledge in all of the time, or has no room for,
// ends it as well: a peer that lives but does not read would keep its replies here for ever.
constexpr int dead_peer_probes = 3;

// The send buffer for a peer on this machine, in bytes as setsockopt takes them. Left to itself the kernel
// lets it grow to megabytes; what was sent is then out of the processor's cache before the peer copies it,
// which halves large reads. Half of this is less than one segment of the loopback device, and stalls. A real
// network needs what the kernel finds.
constexpr int same_machine_send_buffer = 64 << 10;

// Unix clients have no address of their own, but the system knows their process.
std::string describe_unix_peer(transport::socket& socket) {
  ucred who{};
  socklen_t length = sizeof who;
  const bool known = ::getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &who, &length) == 0;
  return known ? "unix client, process " + std::to_string(who.pid) : "unix client";
}

asio::ip::tcp::endpoint as_tcp(const asio::generic::stream_protocol::endpoint& any) {
  asio::ip::tcp::endpoint address;
  std::memcpy(address.data(), any.data(), any.size());
  address.resize(any.size());
  return address;
}

std::string describe_peer(transport::socket& socket) {
  boost::system::error_code failure;
  const auto remote = socket.remote_endpoint(failure);
  if (failure) return "a client that has gone";
  if (remote.protocol().family() == AF_UNIX) return describe_unix_peer(socket);
  const asio::ip::tcp::endpoint address = as_tcp(remote);
  const std::string host = address.address().to_string();
  return (address.address().is_v6() ? "[" + host + "]" : host) + ":" + std::to_string(address.port());
}

void set(int fd, int level, int name, int value) {
  // A socket without the option (a Unix one, an old kernel) works without it.
  (void)::setsockopt(fd, level, name, &value, sizeof value);
}

bool is_on_this_machine(const transport::socket& socket) {
  boost::system::error_code failure;
  const auto local = socket.local_endpoint(failure);
  if (failure) return false;
  const auto remote = socket.remote_endpoint(failure);
  return !failure && as_tcp(local).address() == as_tcp(remote).address();
}

void set_tcp_options(transport::socket& socket, std::chrono::seconds dead_peer_timeout) {
  const int fd = socket.native_handle();
  if (is_on_this_machine(socket)) set(fd, SOL_SOCKET, SO_SNDBUF, same_machine_send_buffer);
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  const int patience_s = static_cast<int>(dead_peer_timeout.count());
  const int idle_s = patience_s * 2 / 3;
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle_s);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, std::max(1, (patience_s - idle_s) / dead_peer_probes));
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, dead_peer_probes);
  set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, patience_s * 1000);
}

}  // namespace

transport::transport(socket connected, std::chrono::seconds dead_peer_timeout)
    : socket_(std::move(connected)), peer_(describe_peer(socket_)) {
  boost::system::error_code ignored;
  socket_.non_blocking(true, ignored);
  is_unix_ = socket_.local_endpoint(ignored).protocol().family() == AF_UNIX;
  if (!is_unix_) set_tcp_options(socket_, dead_peer_timeout);
}

transport::~transport() = default;

asio::awaitable<transport::upgrade_result> transport::upgrade(std::shared_ptr<const tls_context> keys) {
  tls_ = std::make_unique<tls_stream>(std::move(keys));
  for (;;) {
    const auto [ignored, next, failure] = tls_->shake_hands();
    std::error_code broken;
    // Also when it failed: the last words say why.
    while (!flush(broken) && !broken) (void)co_await socket_.async_wait(socket::wait_write, as_result);
    if (broken) tls_->fail(broken);
    if (failure || broken) co_return upgrade_result{.is_secure = false, .about = tls_->describe()};
    if (next == tls_stream::need::nothing)
      co_return upgrade_result{.is_secure = true, .about = tls_->describe()};
    if (next != tls_stream::need::input) continue;
    const auto space = tls_->input_space();
    const auto [gone, bytes] =
        co_await socket_.async_read_some(asio::buffer(space.data(), space.size()), as_result);
    if (gone) {
      tls_->fail(gone);
      co_return upgrade_result{.is_secure = false, .about = tls_->describe()};
    }
    tls_->input_filled(bytes);
  }
}

asio::awaitable<transport::read_result> transport::read_some(read_buffers into) {
  if (tls_) co_return co_await read_decrypted(into);
  const auto [failure, bytes] = co_await socket_.async_read_some(into, as_result);
  co_return read_result{.bytes = bytes, .failure = failure};
}

// Each batch of bytes from the socket takes its turn on the loop, however much is to be had, so that one busy
// client does not keep the others waiting.
asio::awaitable<transport::read_result> transport::read_decrypted(read_buffers into) {
  const std::array<iovec, 2> places{{{into[0].data(), into[0].size()}, {into[1].data(), into[1].size()}}};
  for (;;) {
    const std::size_t unsent = tls_->output().size();
    const auto [bytes, next, failure] = tls_->read(places);
    // TLS has messages of its own to answer. That they cannot be sent shows in the next read.
    std::error_code ignored;
    if (tls_->output().size() != unsent) (void)flush(ignored);
    if (bytes != 0 || failure) co_return read_result{.bytes = bytes, .failure = failure};
    if (next == tls_stream::need::room) {
      std::error_code broken;
      if (!flush(broken) && !broken) (void)co_await socket_.async_wait(socket::wait_write, as_result);
      if (broken) co_return read_result{.failure = broken};
      continue;
    }
    const auto space = tls_->input_space();
    const auto [gone, received] =
        co_await socket_.async_read_some(asio::buffer(space.data(), space.size()), as_result);
    if (gone) co_return read_result{.failure = gone};
    tls_->input_filled(received);
  }
}

asio::awaitable<std::error_code> transport::write(std::span<const std::byte> bytes) {
  if (tls_) co_return co_await write_encrypted(bytes);
  const auto [failure, written] =
      co_await asio::async_write(socket_, asio::buffer(bytes.data(), bytes.size()), as_result);
  co_return failure;
}

asio::awaitable<std::error_code> transport::write_encrypted(std::span<const std::byte> bytes) {
  std::error_code failure;
  for (;;) {
    const iovec rest{const_cast<std::byte*>(bytes.data()), bytes.size()};
    bytes = bytes.subspan(send_encrypted({&rest, 1}, failure));
    if (failure || (bytes.empty() && !has_unsent())) co_return failure;
    const auto [broken] = co_await socket_.async_wait(socket::wait_write, as_result);
    if (broken) co_return broken;
  }
}

std::size_t transport::send_now(std::span<const iovec> pieces, std::error_code& failure) {
  return tls_ ? send_encrypted(pieces, failure) : send_raw(pieces, failure);
}

std::size_t transport::send_encrypted(std::span<const iovec> pieces, std::error_code& failure) {
  std::size_t taken = 0;
  while (flush(failure)) {
    const auto more = tls_->write(pieces, taken);
    taken += more.bytes;
    if (more.failure) failure = more.failure;
    if (more.failure || !has_unsent()) break;
  }
  return taken;
}

// True when nothing is left to send.
bool transport::flush(std::error_code& failure) {
  while (has_unsent()) {
    const auto output = tls_->output();
    const iovec piece{const_cast<std::byte*>(output.data()), output.size()};
    const std::size_t sent = send_raw({&piece, 1}, failure);
    tls_->output_sent(sent);
    if (sent != output.size()) return false;
  }
  if (is_finishing_) {
    boost::system::error_code ignored;  // the peer may have been first
    socket_.shutdown(socket::shutdown_send, ignored);
  }
  return true;
}

bool transport::has_unsent() const {
  return tls_ && !tls_->output().empty();
}

std::size_t transport::send_raw(std::span<const iovec> pieces, std::error_code& failure) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());  // sendmsg does not change them
  message.msg_iovlen = pieces.size();
  for (;;) {
    const ssize_t sent = ::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) failure.assign(errno, std::system_category());
    return 0;
  }
}

bool transport::has_delivered_all() {
  if (has_unsent()) return false;
  // What was sent to a Unix socket is with the peer already, and stays readable when we close.
  if (is_unix_) return true;
  int unsent = 0;
  return ::ioctl(socket_.native_handle(), SIOCOUTQ, &unsent) == 0 && unsent == 0;
}

void transport::finish_sending() {
  const bool comes_later = has_unsent();  // whoever waits to send that will send the good-bye, too
  if (tls_) tls_->say_goodbye();
  is_finishing_ = true;
  std::error_code failed;
  if (flush(failed) || comes_later) return;
  boost::system::error_code ignored;  // the peer may have been first
  socket_.shutdown(socket::shutdown_send, ignored);
}

void transport::shut_down() {
  if (tls_) {
    tls_->say_goodbye();
    std::error_code failed;  // there is nobody left to tell
    (void)flush(failed);
  }
  boost::system::error_code ignored;  // the peer may have been first
  socket_.shutdown(socket::shutdown_both, ignored);
}

}  // namespace aionbd::server
