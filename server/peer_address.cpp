#include "server/peer_address.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace aionbd::server {

namespace {

constexpr std::size_t ipv4_size = 4;
constexpr std::size_t ipv6_size = 16;
constexpr std::size_t origin_size = 8;     // of an IPv6 address: the first 64 bits
constexpr std::size_t mapped_prefix = 12;  // ::ffff:0:0/96

peer_address of_ipv4(const void* address) {
  peer_address who{.kind = peer_kind::ipv4};
  std::memcpy(who.bytes.data(), address, ipv4_size);
  return who;
}

peer_address of_ipv6(const in6_addr& address) {
  if (IN6_IS_ADDR_V4MAPPED(&address)) return of_ipv4(address.s6_addr + mapped_prefix);
  peer_address who{.kind = peer_kind::ipv6};
  std::memcpy(who.bytes.data(), &address, ipv6_size);
  return who;
}

}  // namespace

peer_address origin_of(const peer_address& who) {
  peer_address origin = who;
  if (who.kind == peer_kind::ipv6) std::fill(origin.bytes.begin() + origin_size, origin.bytes.end(), 0);
  return origin;
}

std::string text_of(const peer_address& who) {
  if (who.kind == peer_kind::local) return fmt::format("user {}", who.user);
  char text[INET6_ADDRSTRLEN] = "?";
  ::inet_ntop(who.kind == peer_kind::ipv4 ? AF_INET : AF_INET6, who.bytes.data(), text, sizeof text);
  return text;
}

std::string text_of_origin(const peer_address& origin) {
  return origin.kind == peer_kind::ipv6 ? text_of(origin) + "/64" : text_of(origin);
}

std::optional<peer_address> as_peer(const sockaddr_storage& address) {
  const void* const raw = &address;
  if (address.ss_family == AF_INET) return of_ipv4(&static_cast<const sockaddr_in*>(raw)->sin_addr);
  if (address.ss_family == AF_INET6) return of_ipv6(static_cast<const sockaddr_in6*>(raw)->sin6_addr);
  return std::nullopt;
}

std::optional<peer_address> peer_of(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getpeername(fd, static_cast<sockaddr*>(static_cast<void*>(&address)), &length) != 0)
    return std::nullopt;
  if (address.ss_family != AF_UNIX) return as_peer(address);
  ucred who{};
  socklen_t who_length = sizeof who;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &who_length) != 0) return std::nullopt;
  return peer_address{.kind = peer_kind::local, .user = who.uid};
}

}  // namespace aionbd::server
