#include "server/access_list.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string_view>

namespace aionbd::server {

namespace {

constexpr unsigned ipv4_bits = 32;
constexpr unsigned ipv6_bits = 128;
constexpr unsigned mapped_bits = 96;  // of ::ffff:0:0/96

std::optional<unsigned> parse_bits(std::string_view text, unsigned most) {
  unsigned value = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, failure] = std::from_chars(text.data(), end, value);
  if (failure != std::errc() || stopped != end || value > most) return std::nullopt;
  return value;
}

// The address with everything behind its first `bits` bits cleared.
peer_address prefix_of(const peer_address& address, unsigned bits) {
  peer_address first = address;
  for (unsigned i = 0; i < first.bytes.size(); ++i) {
    const unsigned kept = std::clamp(bits, 8 * i, 8 * (i + 1)) - 8 * i;  // of this byte
    first.bytes[i] = static_cast<std::uint8_t>(first.bytes[i] & (0xFF00U >> kept));
  }
  return first;
}

// The four or sixteen bytes of an address, strictly: inet_pton takes no names, no octal and nothing left out.
std::optional<peer_address> parse_address(const std::string& text) {
  sockaddr_storage raw{};
  void* const at = &raw;
  if (::inet_pton(AF_INET, text.c_str(), &static_cast<sockaddr_in*>(at)->sin_addr) == 1) {
    raw.ss_family = AF_INET;
  } else if (::inet_pton(AF_INET6, text.c_str(), &static_cast<sockaddr_in6*>(at)->sin6_addr) == 1) {
    raw.ss_family = AF_INET6;
  }
  return as_peer(raw);
}

}  // namespace

bool network::contains(const peer_address& who) const {
  return who.kind == first.kind && prefix_of(who, bits).bytes == first.bytes;
}

network parse_network(const std::string& text) {
  const auto slash = text.find('/');
  const std::string host = text.substr(0, slash);
  const auto address = parse_address(host);
  if (!address) {
    throw std::invalid_argument(
        fmt::format("'{}' is not a network in numbers, such as 192.0.2.0/24 or 2001:db8::/32", text));
  }
  // What was written as an IPv6 address has its length counted as one, even if it is a mapped IPv4 address.
  const bool written_as_ipv6 = host.find(':') != host.npos;
  const bool is_mapped = written_as_ipv6 && address->kind == peer_kind::ipv4;
  const unsigned most = written_as_ipv6 ? ipv6_bits : ipv4_bits;
  const auto bits = slash == text.npos ? most : parse_bits(std::string_view(text).substr(slash + 1), most);
  if (!bits) throw std::invalid_argument(fmt::format("'{}': the length is not from 0 to {}", text, most));
  if (is_mapped && *bits < mapped_bits) {
    throw std::invalid_argument(fmt::format("'{}': a mapped IPv4 network has a length of 96 or more", text));
  }
  network result{.first = {}, .bits = is_mapped ? *bits - mapped_bits : *bits};
  result.first = prefix_of(*address, result.bits);
  if (result.first != *address) {
    throw std::invalid_argument(
        fmt::format("'{}': the network of this length is {}/{}", text, text_of(result.first), result.bits));
  }
  return result;
}

bool is_allowed(const std::vector<network>& list, const peer_address& who) {
  if (list.empty() || who.kind == peer_kind::local) return true;
  return std::any_of(list.begin(), list.end(), [&](const network& each) { return each.contains(who); });
}

}  // namespace aionbd::server
