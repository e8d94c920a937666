#include "server/config.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>
#include <string_view>

#include "protocol/constants.hpp"
#include "protocol/text.hpp"
#include "server/access_options.hpp"

namespace aionbd::server {

namespace {

constexpr std::uint64_t file_size_max = std::numeric_limits<std::int64_t>::max();
constexpr std::uint64_t in_flight_bytes_min = std::uint64_t{1} << 20;
constexpr std::uint64_t in_flight_bytes_limit = std::uint64_t{1} << 36;

template <typename Number>
Number parse_number(const std::string& knob, std::string_view text, Number least, Number most) {
  Number value{};
  const char* const end = text.data() + text.size();
  const auto [stopped, failure] = std::from_chars(text.data(), end, value);
  if (failure != std::errc() || stopped != end || value < least || value > most) {
    throw usage_error(fmt::format("{}: '{}' is not a number from {} to {}", knob, text, least, most));
  }
  return value;
}

unsigned shift_of_unit(const std::string& knob, std::string_view unit) {
  constexpr std::string_view units = "KMGTPE";
  std::string_view rest = unit;
  if (rest.ends_with("iB")) {
    rest.remove_suffix(2);
  } else if (rest.ends_with("B")) {
    rest.remove_suffix(1);
  }
  if (rest.empty()) return 0;
  const auto at = rest.size() == 1
                      ? units.find(static_cast<char>(std::toupper(static_cast<unsigned char>(rest.front()))))
                      : units.npos;
  if (at == units.npos) throw usage_error(fmt::format("{}: '{}' is no unit; use K, M, G or T", knob, unit));
  return static_cast<unsigned>(10 * (at + 1));
}

// What the command line holds as text until it is checked.
struct raw_settings {
  std::vector<std::string> listen;
  std::optional<std::string> create;
  std::string in_flight = "64M";
  std::string io = "direct";
  std::optional<std::string> tls;
  std::optional<std::string> tls_certificates;
  std::optional<std::string> tls_psk;
  std::string threads = std::to_string(config().threads);
  std::string connections = std::to_string(config().connections_max);
  std::string handshake_timeout = std::to_string(config().handshake_timeout.count());
  std::string queue_depth = std::to_string(config().queue_depth);
  std::string drain_timeout = std::to_string(config().drain_timeout.count());
  std::string per_address = std::to_string(config().per_address_max);
  std::string dead_peer_timeout = std::to_string(config().dead_peer_timeout.count());
  access_options access;
};

void declare(CLI::App& app, config& settings, raw_settings& raw) {
  app.add_option("FILE", settings.file, "Regular file or block device to serve")
      ->required()
      ->option_text(" ");
  app.add_option("-l,--listen", raw.listen,
                 "TCP address HOST[:PORT]; repeatable; port 0 picks one\n(127.0.0.1 and [::1], port 10809)")
      ->type_name("ADDRESS")
      ->allow_extra_args(false);
  app.add_option("-u,--unix", settings.unix_paths, "Unix socket; repeatable; alone, no TCP port is opened")
      ->type_name("PATH")
      ->allow_extra_args(false);
  app.add_option("-n,--name", settings.export_name, "Export name (the default export, \"\")")
      ->type_name("NAME");
  app.add_option("-D,--description", settings.description, "Shown to clients that list exports")
      ->type_name("TEXT");
  app.add_flag("-r,--read-only", settings.read_only, "Refuse changes; other readers may share the file");
  app.add_option_function<std::string>(
         "--create", [&raw](const std::string& size) { raw.create = size; },
         "Create FILE with this size if it is missing: 512M, 10G")
      ->type_name("SIZE");
  app.add_flag("--preallocate", settings.preallocate, "With --create: allocate all its space");
  app.add_option("--io", raw.io, "direct, or buffered: through the page cache (direct)")->type_name("HOW");
  app.add_option_function<std::string>(
         "--tls", [&raw](const std::string& policy) { raw.tls = policy; },
         "off, allowed or required (required once there are keys)")
      ->type_name("POLICY");
  app.add_option_function<std::string>(
         "--tls-certificates", [&raw](const std::string& folder) { raw.tls_certificates = folder; },
         "Folder with server-cert.pem, server-key.pem and,\nunless anyone may come in, ca-cert.pem")
      ->type_name("DIR");
  app.add_option("--tls-allow", settings.tls.allowed_names,
                 "Clients\' CN, DNS name or IP address; with @ or : also\ne-mail or URI, with = only the "
                 "subject; repeatable")
      ->type_name("PATTERN")
      ->allow_extra_args(false);
  app.add_option_function<std::string>(
         "--tls-psk", [&raw](const std::string& file) { raw.tls_psk = file; },
         "Pre-shared keys, a line of user:hex for each")
      ->type_name("FILE");
  app.add_option("--threads", raw.threads, fmt::format("Event loops ({})", settings.threads))->type_name("N");
  app.add_option("--max-connections", raw.connections,
                 fmt::format("Clients at once ({})", settings.connections_max))
      ->type_name("N");
  app.add_option("--max-per-address", raw.per_address,
                 fmt::format("Clients at once from one address ({})", settings.per_address_max))
      ->type_name("N");
  app.add_option("--handshake-timeout", raw.handshake_timeout,
                 fmt::format("Seconds for the handshake ({})", settings.handshake_timeout.count()))
      ->type_name("SECONDS");
  app.add_option("--max-in-flight", raw.in_flight, "Bytes of buffers at once, per connection (64M)")
      ->type_name("SIZE");
  app.add_option("--queue-depth", raw.queue_depth,
                 fmt::format("Requests at once, per connection ({})", settings.queue_depth))
      ->type_name("N");
  app.add_option(
         "--drain-timeout", raw.drain_timeout,
         fmt::format("Seconds that requests get to finish at a stop ({})", settings.drain_timeout.count()))
      ->type_name("SECONDS");
  app.add_option("--dead-peer-timeout", raw.dead_peer_timeout,
                 fmt::format("Seconds of silence until a client is taken for dead ({})",
                             settings.dead_peer_timeout.count()))
      ->type_name("SECONDS");
  app.add_option("--log-level", settings.log_level, "debug, info, warn, error or off (info)")
      ->type_name("LEVEL");
}

void apply_limits(config& settings, const raw_settings& raw) {
  settings.connections_max = parse_number("--max-connections", raw.connections, 1U, 65536U);
  settings.per_address_max = parse_number("--max-per-address", raw.per_address, 1U, 65536U);
  settings.handshake_timeout =
      std::chrono::seconds(parse_number("--handshake-timeout", raw.handshake_timeout, 1U, 3600U));
  settings.queue_depth = parse_number("--queue-depth", raw.queue_depth, 1U, 4096U);
  settings.drain_timeout =
      std::chrono::seconds(parse_number("--drain-timeout", raw.drain_timeout, 0U, 3600U));
  settings.dead_peer_timeout =
      std::chrono::seconds(parse_number("--dead-peer-timeout", raw.dead_peer_timeout, 5U, 86400U));
  settings.in_flight_bytes_max = parse_size("--max-in-flight", raw.in_flight);
  if (settings.in_flight_bytes_max < in_flight_bytes_min ||
      settings.in_flight_bytes_max > in_flight_bytes_limit) {
    throw usage_error(fmt::format("--max-in-flight: '{}' is not from 1M to 64G", raw.in_flight));
  }
}

void check_name(const config& settings) {
  if (settings.export_name.size() > protocol::name_length_max) {
    throw usage_error(fmt::format("--name: longer than {} bytes", protocol::name_length_max));
  }
  if (!protocol::is_well_formed(settings.export_name)) {
    throw usage_error("--name: not valid UTF-8 without NUL bytes");
  }
  if (settings.description.size() > protocol::text_length_max ||
      !protocol::is_well_formed(settings.description)) {
    throw usage_error(
        fmt::format("--description: longer than {} bytes, or not valid UTF-8", protocol::text_length_max));
  }
}

void apply_tls(tls_settings& tls, const raw_settings& raw) {
  using protocol::tls_policy;
  // An empty name, of a variable that is not set perhaps, must not switch TLS off.
  if (raw.tls_certificates && raw.tls_certificates->empty())
    throw usage_error("--tls-certificates: the name is empty");
  if (raw.tls_psk && raw.tls_psk->empty()) throw usage_error("--tls-psk: the name is empty");
  tls.certificates = raw.tls_certificates.value_or("");
  tls.psk_file = raw.tls_psk.value_or("");
  const bool has_keys = raw.tls_certificates || raw.tls_psk;

  const std::string policy = raw.tls.value_or(has_keys ? "required" : "off");
  if (policy != "off" && policy != "allowed" && policy != "required") {
    throw usage_error(fmt::format("--tls: '{}' is not one of off, allowed, required", policy));
  }
  tls.policy = policy == "off"       ? tls_policy::off
               : policy == "allowed" ? tls_policy::allowed
                                     : tls_policy::required;
  if (tls.policy == tls_policy::off && has_keys) {
    throw usage_error(fmt::format("--tls off: cannot be used with {}",
                                  raw.tls_certificates ? "--tls-certificates" : "--tls-psk"));
  }
  if (tls.policy != tls_policy::off && !has_keys) {
    throw usage_error(
        fmt::format("--tls {}: needs --tls-certificates or --tls-psk; aionbd keygen makes either", policy));
  }
  if (!tls.allowed_names.empty() && !raw.tls_certificates) {
    throw usage_error("--tls-allow: needs --tls-certificates");
  }
  if (std::find(tls.allowed_names.begin(), tls.allowed_names.end(), "") != tls.allowed_names.end()) {
    throw usage_error("--tls-allow: the pattern is empty");
  }
}

void apply(config& settings, const raw_settings& raw) {
  if (settings.file.empty()) throw usage_error("FILE: the name is empty");
  for (const auto& text : raw.listen) settings.tcp.push_back(parse_listen(text));
  for (const auto& path : settings.unix_paths) {
    // sockaddr_un has room for 107 bytes and a NUL.
    if (path.empty() || path.size() > 107)
      throw usage_error(fmt::format("--unix: '{}' must be 1 to 107 bytes long", path));
  }
  check_name(settings);
  if (raw.create) {
    settings.create_size = parse_size("--create", *raw.create);
    if (*settings.create_size == 0) throw usage_error("--create: a file of 0 bytes has nothing to serve");
    if (settings.read_only) throw usage_error("--create: cannot be used with --read-only");
  }
  if (settings.preallocate && !raw.create) throw usage_error("--preallocate: needs --create");
  if (raw.io != "direct" && raw.io != "buffered") {
    throw usage_error(fmt::format("--io: '{}' is neither direct nor buffered", raw.io));
  }
  settings.direct = raw.io == "direct";
  apply_tls(settings.tls, raw);
  settings.threads = parse_number("--threads", raw.threads, 1U, 64U);
  apply_limits(settings, raw);
  apply_access(settings, raw.access);
  constexpr std::string_view levels[] = {"debug", "info", "warn", "error", "off"};
  if (std::find(std::begin(levels), std::end(levels), settings.log_level) == std::end(levels)) {
    throw usage_error(
        fmt::format("--log-level: '{}' is not one of debug, info, warn, error, off", settings.log_level));
  }
}

void listen_by_default(config& settings) {
  settings.addresses_were_given = !settings.tcp.empty() || !settings.unix_paths.empty();
  if (settings.addresses_were_given) return;
  settings.tcp = {{.host = "127.0.0.1", .port = default_port},
                  {.host = "::1", .port = default_port, .must_exist = false}};
}

}  // namespace

std::uint64_t parse_size(const std::string& knob, const std::string& text) {
  const auto unit_at = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = std::string_view(text).substr(0, unit_at);
  const unsigned shift = shift_of_unit(knob, std::string_view(text).substr(unit_at));
  const auto most = file_size_max >> shift;
  return parse_number<std::uint64_t>(knob, number, 0, most) << shift;
}

tcp_address parse_listen(const std::string& text) {
  const std::string knob = "--listen";
  const auto colon = text.rfind(':');
  const bool bracketed = text.starts_with('[');
  // A bare IPv6 address has several colons and no port.
  const bool bare_v6 = !bracketed && text.find(':') != colon;
  std::string host = text;
  std::uint16_t port = default_port;
  if (bracketed) {
    const auto close = text.find(']');
    const std::string rest = close == text.npos ? "?" : text.substr(close + 1);
    if (!rest.empty() && !rest.starts_with(':')) {
      throw usage_error(fmt::format("{}: '{}' should look like [ADDRESS]:PORT", knob, text));
    }
    host = text.substr(1, close - 1);
    if (!rest.empty()) port = parse_number<std::uint16_t>(knob, rest.substr(1), 0, 65535);
  } else if (colon != text.npos && !bare_v6) {
    host = text.substr(0, colon);
    port = parse_number<std::uint16_t>(knob, text.substr(colon + 1), 0, 65535);
  }
  if (host.empty()) throw usage_error(fmt::format("{}: '{}' has no host", knob, text));
  return {.host = host, .port = port};
}

parsed parse_command_line(int argc, const char* const* argv) {
  parsed result;
  raw_settings raw;
  CLI::App app{"Serves a file or block device over NBD with direct, asynchronous I/O.", "aionbd"};
  app.set_version_flag("--version", "aionbd " AIONBD_VERSION);
  app.footer("Attach: nbd-client localhost /dev/nbd0   Keys for TLS: aionbd keygen --help");
  app.get_formatter()->column_width(32);
  declare(app, result.settings, raw);
  declare_access(app, result.settings, raw.access);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    result.instead = just_print{app.help()};
    return result;
  } catch (const CLI::CallForVersion&) {
    result.instead = just_print{"aionbd " AIONBD_VERSION "\n"};
    return result;
  } catch (const CLI::ParseError& error) {
    throw usage_error(error.what());
  }
  apply(result.settings, raw);
  listen_by_default(result.settings);
  return result;
}

}  // namespace aionbd::server
