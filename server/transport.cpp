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

namespace aionbd::server {

namespace {

namespace asio = boost::asio;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

// Of the time until a silent peer is given up, two thirds pass before it is asked for a sign of life; the
// rest is divided among the probes. Data that it does not acknowledge in all of the time ends it as well.
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

asio::awaitable<transport::read_result> transport::read_some(read_buffers into) {
  const auto [failure, bytes] = co_await socket_.async_read_some(into, as_result);
  co_return read_result{.bytes = bytes, .failure = failure};
}

asio::awaitable<std::error_code> transport::write(std::span<const std::byte> bytes) {
  const auto [failure, written] =
      co_await asio::async_write(socket_, asio::buffer(bytes.data(), bytes.size()), as_result);
  co_return failure;
}

std::size_t transport::send_now(std::span<const iovec> pieces, std::error_code& failure) {
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
  // What was sent to a Unix socket is with the peer already, and stays readable when we close.
  if (is_unix_) return true;
  int unsent = 0;
  return ::ioctl(socket_.native_handle(), SIOCOUTQ, &unsent) == 0 && unsent == 0;
}

void transport::finish_sending() {
  boost::system::error_code ignored;  // the peer may have been first
  socket_.shutdown(socket::shutdown_send, ignored);
}

void transport::shut_down() {
  boost::system::error_code ignored;  // the peer may have been first
  socket_.shutdown(socket::shutdown_both, ignored);
}

}  // namespace aionbd::server
