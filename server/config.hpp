// The command line as one validated struct. Pure: nothing is opened, created or resolved here.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "protocol/handshake.hpp"
#include "server/access_list.hpp"

namespace aionbd::server {

struct tcp_address {
  std::string host;
  std::uint16_t port = 0;  // 0: any free one
  bool must_exist = true;  // false: an address family that this machine lacks is no error

  friend bool operator==(const tcp_address&, const tcp_address&) = default;
};

struct tls_settings {
  protocol::tls_policy policy = protocol::tls_policy::off;
  std::string certificates;                // a folder; empty: none
  std::vector<std::string> allowed_names;  // patterns for clients' certificates; none: all of the authority's
  std::string psk_file;                    // empty: none
};

struct config {
  std::string file;
  std::vector<tcp_address> tcp;
  std::vector<std::string> unix_paths;
  bool addresses_were_given = false;  // by --listen or --unix
  tls_settings tls;

  std::vector<network> allow;  // by TCP; empty: everybody
  mode_t unix_mode = 0600;
  std::optional<std::string> unix_owner;  // "USER[:GROUP]"; whoever starts the server, if none is given
  std::optional<std::string> user;        // whom root becomes, in the same form
  bool sandbox = true;

  std::string export_name;
  std::string description;
  bool read_only = false;
  std::optional<std::uint64_t> create_size;  // bytes
  bool preallocate = false;
  bool direct = true;

  unsigned threads = 1;
  unsigned connections_max = 64;
  unsigned per_address_max = 32;  // connections; see origin_of
  std::chrono::seconds handshake_timeout{10};
  std::uint64_t in_flight_bytes_max = std::uint64_t{64} << 20;  // of buffers of each connection's requests
  unsigned queue_depth = 128;                                   // requests in flight of each connection
  std::chrono::seconds drain_timeout{10};
  std::chrono::seconds dead_peer_timeout{90};
  protocol::handshake_limits handshake;  // no option changes these
  std::string log_level = "info";
};

inline constexpr std::uint16_t default_port = 10809;  // IANA's for nbd

// Something is wrong with the command line; what() names the knob.
class usage_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// --help or --version: what to print before leaving with success.
struct just_print {
  std::string text;
};

struct parsed {
  config settings;
  std::optional<just_print> instead;
};

// Throws usage_error.
[[nodiscard]] parsed parse_command_line(int argc, const char* const* argv);

// The parts, for their own tests. Both throw usage_error; the first names `knob`, the other --listen.
[[nodiscard]] std::uint64_t parse_size(const std::string& knob, const std::string& text);  // "10G" -> bytes
[[nodiscard]] tcp_address parse_listen(const std::string& text);  // "host", "host:port", "[v6]:port"

}  // namespace aionbd::server
