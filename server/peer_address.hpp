// Who is at the other end of a socket, in numbers: for access lists, and for counting who is connected. As
// text it is for people, and text is never compared.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace aionbd::server {

enum class peer_kind : std::uint8_t { local, ipv4, ipv6 };

struct peer_address {
  peer_kind kind = peer_kind::local;
  // In network order. An IPv4 address stands in the first four, also one that came mapped (::ffff:192.0.2.1).
  std::array<std::uint8_t, 16> bytes{};
  uid_t user = 0;  // of a local peer

  friend auto operator<=>(const peer_address&, const peer_address&) = default;
};

// Those that count as one client: an IPv4 address, the /64 network of an IPv6 address (each customer of a
// provider has at least one such network to himself), or a user of this machine.
[[nodiscard]] peer_address origin_of(const peer_address& who);

// "192.0.2.1", "2001:db8::1", "user 1000". An origin that is a network is followed by its length.
[[nodiscard]] std::string text_of(const peer_address& who);
[[nodiscard]] std::string text_of_origin(const peer_address& origin);

// Nothing for a family that clients cannot have.
[[nodiscard]] std::optional<peer_address> as_peer(const sockaddr_storage& address);
// Of a connected socket; nothing when its peer has gone.
[[nodiscard]] std::optional<peer_address> peer_of(int fd);

}  // namespace aionbd::server
