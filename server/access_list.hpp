// Which addresses may connect: networks, compared bit by bit as numbers. nbd-server once compared them as
// text (CVE-2013-6410), so that 10.0.0.1 let in 10.0.0.10.
#pragma once

#include <string>
#include <vector>

#include "server/peer_address.hpp"

namespace aionbd::server {

struct network {
  peer_address first;  // all bits behind the prefix are 0
  unsigned bits = 0;   // of the prefix

  bool contains(const peer_address& who) const;
  friend bool operator==(const network&, const network&) = default;
};

// "192.0.2.0/24", "2001:db8::/32"; without a length, that one address. A mapped network
// (::ffff:192.0.2.0/120) is the IPv4 network; none of the others contains IPv4 addresses, not even ::/0.
// Throws std::invalid_argument with what is wrong with it: a typing error must not open a door.
[[nodiscard]] network parse_network(const std::string& text);

// True for everybody when there is no list, and for local peers: a Unix socket has permissions of its own.
[[nodiscard]] bool is_allowed(const std::vector<network>& list, const peer_address& who);

}  // namespace aionbd::server
