#include "tests/simulation/socket_client.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "protocol/requests.hpp"
#include "server/unix_socket.hpp"

namespace aionbd::tests {

namespace {

using protocol::reply_mode;

constexpr std::uint64_t ack = 1, info = 3;

std::uint64_t number(std::span<const std::byte> from, std::size_t offset, std::size_t octets) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < octets; ++i)
    value = value << 8U | std::to_integer<std::uint64_t>(from[offset + i]);
  return value;
}

byte_vector option(std::uint32_t number, const byte_vector& data) {
  return packet().text("IHAVEOPT").u32(number).u32(data.size()).append(data);
}

storage::file_descriptor connected_to(const std::string& path) {
  const auto address = server::unix_address::of(path);
  storage::file_descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || !address || ::connect(fd.get(), address->get(), address->length()) != 0) {
    throw std::runtime_error("cannot connect to " + path + ": " + std::strerror(errno));
  }
  return fd;
}

}  // namespace

socket_client::socket_client(const std::string& path, reply_mode mode) : fd_(connected_to(path)) {
  shake_hands(mode);
  const int flags = ::fcntl(fd_.get(), F_GETFL);
  (void)::fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK);
}

void socket_client::shake_hands(reply_mode mode) {
  (void)receive(18);
  packet said;
  said.u32(3);
  if (mode == reply_mode::structured) said.append(option(8, {}));
  if (mode == reply_mode::extended) said.append(option(11, {}));
  said.append(option(7, packet().u32(0).u16(0)));
  const byte_vector bytes = said;
  if (::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) {
    throw std::runtime_error("the server does not listen");
  }
  std::size_t acks_left = mode == reply_mode::simple ? 1 : 2;
  while (acks_left != 0) {
    const byte_vector head = receive(20);
    const std::uint64_t kind = number(head, 12, 4);
    const byte_vector data = receive(number(head, 16, 4));
    if (kind == ack) --acks_left;
    if (kind != ack && kind != info) throw std::runtime_error("the server refuses what it must not");
    if (kind == info && number(data, 0, 2) == 0) disk_.size = number(data, 2, 8);
  }
  agreed_ = {.chosen = &disk_, .no_zeroes = true, .replies = mode};
}

byte_vector socket_client::receive(std::size_t length) {
  byte_vector bytes(length);
  if (length == 0) return bytes;
  if (::recv(fd_.get(), bytes.data(), length, MSG_WAITALL) != static_cast<ssize_t>(length)) {
    throw std::runtime_error("the server hangs up in the handshake");
  }
  return bytes;
}

std::uint64_t socket_client::ask(protocol::request what, std::span<const std::byte> payload) {
  what.cookie = ++last_cookie_;
  if (what.what == protocol::command::write && mode() == reply_mode::extended) {
    what.flags |= protocol::command_flag::payload_len;
  }
  reader_.asked(what);
  std::array<std::byte, protocol::extended_request_size> header{};
  protocol::encode_request(header, what, mode());
  const auto length = static_cast<std::ptrdiff_t>(protocol::request_header_size(mode()));
  to_say_.insert(to_say_.end(), header.begin(), header.begin() + length);
  to_say_.insert(to_say_.end(), payload.begin(), payload.end());
  return what.cookie;
}

bool socket_client::move() {
  if (!to_say_.empty()) {
    const ssize_t sent = ::send(fd_.get(), to_say_.data(), to_say_.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return false;
    to_say_.erase(to_say_.begin(), to_say_.begin() + std::max<ssize_t>(sent, 0));
  }
  std::array<std::byte, std::size_t{64} << 10U> room;
  const ssize_t received = ::recv(fd_.get(), room.data(), room.size(), 0);
  if (received < 0) return errno == EAGAIN;
  reader_.heard(std::span(room).first(static_cast<std::size_t>(received)));
  return received != 0;
}

}  // namespace aionbd::tests
