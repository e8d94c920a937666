#include "tests/server/client.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "tests/server/requests.hpp"
#include "tests/support/catch.hpp"

namespace aionbd::tests {

namespace {

constexpr std::chrono::seconds patience{20};

// What one receive is given room for at most: the sockets hold no more.
constexpr std::size_t receive_max = std::size_t{1} << 20;

std::uint64_t number(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (const std::byte each : bytes) value = value << 8U | std::to_integer<std::uint64_t>(each);
  return value;
}

}  // namespace

client::client(int fd, std::function<void()> meanwhile) : fd_(fd), meanwhile_(std::move(meanwhile)) {}

client::client(client&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), meanwhile_(std::move(other.meanwhile_)) {}

client& client::operator=(client&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(meanwhile_, other.meanwhile_);
  return *this;
}

void client::wait_for(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) FAIL("the server neither answers nor reads");
    meanwhile_();
  }
}

std::size_t client::send_now(std::span<const std::byte> bytes) {
  const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) FAIL("the server has closed the stream: errno " << errno);
  return sent < 0 ? 0 : static_cast<std::size_t>(sent);
}

void client::send(std::span<const std::byte> bytes) {
  wait_for([&] {
    bytes = bytes.subspan(send_now(bytes));
    return bytes.empty();
  });
}

byte_vector client::receive_now(std::size_t length) {
  byte_vector bytes(std::min(length, receive_max));
  const ssize_t received = ::recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
  bytes.resize(received < 0 ? 0 : static_cast<std::size_t>(received));
  return bytes;
}

byte_vector client::receive_some(std::size_t length) {
  byte_vector bytes(std::min(length, receive_max));
  ssize_t received = 0;
  wait_for([&] {
    received = ::recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    return received >= 0 || errno != EAGAIN;
  });
  bytes.resize(received < 0 ? 0 : static_cast<std::size_t>(received));
  return bytes;
}

byte_vector client::receive(std::size_t length) {
  byte_vector bytes;
  bytes.reserve(length);
  while (bytes.size() < length) {
    const byte_vector more = receive_some(length - bytes.size());
    if (more.empty()) FAIL("the stream ended after " << bytes.size() << " of " << length << " bytes");
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  return bytes;
}

std::map<std::uint64_t, client::reply> client::receive_replies(
    const std::map<std::uint64_t, std::size_t>& expected) {
  std::map<std::uint64_t, reply> replies;
  while (replies.size() < expected.size()) {
    const byte_vector header = receive(reply_size);
    REQUIRE(number(std::span(header).first(4)) == 0x67446698);
    const auto error = static_cast<std::uint32_t>(number(std::span(header).subspan(4, 4)));
    const std::uint64_t cookie = number(std::span(header).subspan(8, 8));
    REQUIRE(expected.count(cookie) == 1);
    REQUIRE(replies.count(cookie) == 0);
    replies[cookie] = {error, error == nbd::ok ? receive(expected.at(cookie)) : byte_vector{}};
  }
  return replies;
}

bool client::is_at_end() {
  return receive_some(1).empty();
}

void client::send_no_more() {
  ::shutdown(fd_, SHUT_WR);
}

void client::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

}  // namespace aionbd::tests
