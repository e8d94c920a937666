#include "server/config.hpp"

#include <initializer_list>
#include <sstream>
#include <vector>

#include "tests/support/catch.hpp"

using namespace aionbd::server;

namespace {

parsed parse(std::initializer_list<const char*> arguments) {
  std::vector<const char*> all{"aionbd"};
  all.insert(all.end(), arguments);
  return parse_command_line(static_cast<int>(all.size()), all.data());
}

config settings_of(std::initializer_list<const char*> arguments) {
  const parsed result = parse(arguments);
  REQUIRE_FALSE(result.instead);
  return result.settings;
}

// The sentence of the usage error, or nothing if there was none.
std::string error_of(std::initializer_list<const char*> arguments) {
  try {
    (void)parse(arguments);
    return "";
  } catch (const usage_error& error) {
    return error.what();
  }
}

std::string help() {
  return parse({"--help"}).instead.value().text;
}

}  // namespace

TEST_CASE("the_file_is_all_that_must_be_given") {
  const config settings = settings_of({"disk.img"});
  CHECK(settings.file == "disk.img");
  CHECK(settings.tcp == std::vector<tcp_address>{{"127.0.0.1", 10809, true}, {"::1", 10809, false}});
  CHECK(settings.unix_paths.empty());
  CHECK_FALSE(settings.addresses_were_given);
  CHECK(settings.export_name.empty());
  CHECK(settings.description.empty());
  CHECK_FALSE(settings.read_only);
  CHECK_FALSE(settings.create_size);
  CHECK_FALSE(settings.preallocate);
  CHECK(settings.direct);
  CHECK(settings.threads == 1);
  CHECK(settings.connections_max == 64);
  CHECK(settings.per_address_max == 32);
  CHECK(settings.dead_peer_timeout == std::chrono::seconds(90));
  CHECK(settings.handshake.options_max == 1024);
  CHECK(settings.handshake.option_length_max == 16384);
  CHECK(settings.handshake.total_bytes_max == 1 << 20);
  CHECK(settings.allow.empty());
  CHECK(settings.unix_mode == 0600);
  CHECK_FALSE(settings.unix_owner);
  CHECK_FALSE(settings.user);
  CHECK(settings.sandbox);
  CHECK(settings.handshake_timeout == std::chrono::seconds(10));
  CHECK(settings.in_flight_bytes_max == 64U << 20);
  CHECK(settings.queue_depth == 128);
  CHECK(settings.drain_timeout == std::chrono::seconds(10));
  CHECK(settings.log_level == "info");
}

TEST_CASE("every_knob_reaches_its_setting") {
  const config settings = settings_of({"-l",
                                       "localhost:1",
                                       "--listen",
                                       "[::1]:2",
                                       "-u",
                                       "/run/a.sock",
                                       "--unix",
                                       "b.sock",
                                       "--name",
                                       "disk",
                                       "-D",
                                       "for people",
                                       "--create",
                                       "10G",
                                       "--preallocate",
                                       "--io",
                                       "buffered",
                                       "--threads",
                                       "4",
                                       "--max-connections",
                                       "7",
                                       "--max-per-address",
                                       "6",
                                       "--dead-peer-timeout",
                                       "30",
                                       "--allow",
                                       "192.0.2.0/24",
                                       "--allow",
                                       "2001:db8::1",
                                       "--unix-mode",
                                       "0660",
                                       "--unix-owner",
                                       "me:us",
                                       "--user",
                                       "nobody",
                                       "--no-sandbox",
                                       "--handshake-timeout",
                                       "3",
                                       "--max-in-flight",
                                       "128M",
                                       "--queue-depth",
                                       "33",
                                       "--drain-timeout",
                                       "5",
                                       "--log-level",
                                       "debug",
                                       "disk.img"});
  CHECK(settings.file == "disk.img");
  CHECK(settings.tcp == std::vector<tcp_address>{{"localhost", 1, true}, {"::1", 2, true}});
  CHECK(settings.addresses_were_given);
  CHECK(settings.unix_paths == std::vector<std::string>{"/run/a.sock", "b.sock"});
  CHECK(settings.export_name == "disk");
  CHECK(settings.description == "for people");
  CHECK(settings.create_size == std::uint64_t{10} << 30);
  CHECK(settings.preallocate);
  CHECK_FALSE(settings.direct);
  CHECK(settings.threads == 4);
  CHECK(settings.connections_max == 7);
  CHECK(settings.per_address_max == 6);
  CHECK(settings.dead_peer_timeout == std::chrono::seconds(30));
  CHECK(settings.allow == std::vector<network>{parse_network("192.0.2.0/24"), parse_network("2001:db8::1")});
  CHECK(settings.unix_mode == 0660);
  CHECK(settings.unix_owner == "me:us");
  CHECK(settings.user == "nobody");
  CHECK_FALSE(settings.sandbox);
  CHECK(settings.handshake_timeout == std::chrono::seconds(3));
  CHECK(settings.in_flight_bytes_max == 128U << 20);
  CHECK(settings.queue_depth == 33);
  CHECK(settings.drain_timeout == std::chrono::seconds(5));
  CHECK(settings.log_level == "debug");
}

TEST_CASE("short_forms_and_equal_signs_are_understood") {
  CHECK(settings_of({"-n", "disk", "-r", "f"}).export_name == "disk");
  CHECK(settings_of({"-r", "f"}).read_only);
  CHECK(settings_of({"--read-only", "f"}).read_only);
  CHECK(settings_of({"--threads=2", "f"}).threads == 2);
  CHECK(settings_of({"f", "--description", "x"}).description == "x");
}

TEST_CASE("repeatable_options_do_not_swallow_the_file") {
  CHECK(settings_of({"-u", "a.sock", "f"}).file == "f");
  CHECK(settings_of({"-l", "host", "f"}).file == "f");
}

TEST_CASE("a_unix_socket_alone_opens_no_tcp_port") {
  CHECK(settings_of({"-u", "a.sock", "f"}).tcp.empty());
  CHECK(settings_of({"-u", "a.sock", "f"}).addresses_were_given);
  CHECK(settings_of({"-u", "a.sock", "-l", "::1", "f"}).tcp.size() == 1);
}

TEST_CASE("the_limits_of_every_number_are_accepted") {
  CHECK(settings_of({"--threads", "1", "f"}).threads == 1);
  CHECK(settings_of({"--threads", "64", "f"}).threads == 64);
  CHECK(settings_of({"--max-connections", "1", "f"}).connections_max == 1);
  CHECK(settings_of({"--max-connections", "65536", "f"}).connections_max == 65536);
  CHECK(settings_of({"--max-per-address", "1", "f"}).per_address_max == 1);
  CHECK(settings_of({"--max-per-address", "65536", "f"}).per_address_max == 65536);
  CHECK(settings_of({"--dead-peer-timeout", "5", "f"}).dead_peer_timeout.count() == 5);
  CHECK(settings_of({"--dead-peer-timeout", "86400", "f"}).dead_peer_timeout.count() == 86400);
  CHECK(settings_of({"-u", "s", "--unix-mode", "0", "f"}).unix_mode == 0);
  CHECK(settings_of({"-u", "s", "--unix-mode", "777", "f"}).unix_mode == 0777);
  CHECK(settings_of({"--handshake-timeout", "1", "f"}).handshake_timeout.count() == 1);
  CHECK(settings_of({"--handshake-timeout", "3600", "f"}).handshake_timeout.count() == 3600);
  CHECK(settings_of({"--queue-depth", "1", "f"}).queue_depth == 1);
  CHECK(settings_of({"--queue-depth", "4096", "f"}).queue_depth == 4096);
  CHECK(settings_of({"--drain-timeout", "0", "f"}).drain_timeout.count() == 0);
  CHECK(settings_of({"--drain-timeout", "3600", "f"}).drain_timeout.count() == 3600);
  CHECK(settings_of({"--max-in-flight", "1M", "f"}).in_flight_bytes_max == 1U << 20);
  CHECK(settings_of({"--max-in-flight", "64G", "f"}).in_flight_bytes_max == std::uint64_t{64} << 30);
}

TEST_CASE("a_number_that_is_none_or_past_its_limits_is_named_with_its_knob_and_limits") {
  struct {
    const char* knob;
    const char* limits;
    std::vector<const char*> values;
  } const rows[] = {{"--threads", "from 1 to 64", {"0", "65", "-1", "two", "2x", " 2", "", "4294967297"}},
                    {"--max-connections", "from 1 to 65536", {"0", "65537", "1e3", ""}},
                    {"--max-per-address", "from 1 to 65536", {"0", "65537", ""}},
                    {"--dead-peer-timeout", "from 5 to 86400", {"4", "86401", ""}},
                    {"--handshake-timeout", "from 1 to 3600", {"0", "3601", "1.5", "10s", ""}},
                    {"--queue-depth", "from 1 to 4096", {"0", "4097", "", "0x10"}},
                    {"--drain-timeout", "from 0 to 3600", {"3601", "-1", ""}}};
  for (const auto& row : rows) {
    for (const char* const value : row.values) {
      CAPTURE(row.knob, value);
      CHECK(error_of({row.knob, value, "f"}) ==
            std::string(row.knob) + ": '" + value + "' is not a number " + row.limits);
    }
  }
}

TEST_CASE("sizes_have_units_of_1024") {
  CHECK(parse_size("k", "0") == 0);
  CHECK(parse_size("k", "1") == 1);
  CHECK(parse_size("k", "512") == 512);
  CHECK(parse_size("k", "512B") == 512);
  CHECK(parse_size("k", "1K") == 1024);
  CHECK(parse_size("k", "1k") == 1024);
  CHECK(parse_size("k", "3M") == 3U << 20);
  CHECK(parse_size("k", "3MB") == 3U << 20);
  CHECK(parse_size("k", "3MiB") == 3U << 20);
  CHECK(parse_size("k", "3g") == std::uint64_t{3} << 30);
  CHECK(parse_size("k", "2T") == std::uint64_t{2} << 40);
  CHECK(parse_size("k", "2P") == std::uint64_t{2} << 50);
  CHECK(parse_size("k", "7E") == std::uint64_t{7} << 60);
  CHECK(parse_size("k", "9223372036854775807") == 9223372036854775807U);
}

TEST_CASE("a_size_that_is_none_is_named_with_its_knob") {
  const auto error_of_size = [](const char* text) -> std::string {
    try {
      (void)parse_size("--create", text);
      return "";
    } catch (const usage_error& error) {
      return error.what();
    }
  };
  CHECK(error_of_size("") == "--create: '' is not a number from 0 to 9223372036854775807");
  CHECK(error_of_size("G") == "--create: '' is not a number from 0 to 8589934591");
  CHECK(error_of_size("10X") == "--create: 'X' is no unit; use K, M, G or T");
  CHECK(error_of_size("10 G") == "--create: ' G' is no unit; use K, M, G or T");
  CHECK(error_of_size("1.5G") == "--create: '.5G' is no unit; use K, M, G or T");
  CHECK(error_of_size("-1") == "--create: '-1' is no unit; use K, M, G or T");
  CHECK(error_of_size("10GG") == "--create: 'GG' is no unit; use K, M, G or T");
  CHECK(error_of_size("10\xff") == "--create: '\xff' is no unit; use K, M, G or T");
  CHECK(error_of_size("8E") == "--create: '8' is not a number from 0 to 7");
  CHECK(error_of_size("9223372036854775808") ==
        "--create: '9223372036854775808' is not a number from 0 to 9223372036854775807");
  CHECK(error_of_size("99999999999999999999K") ==
        "--create: '99999999999999999999' is not a number from 0 to 9007199254740991");
}

TEST_CASE("listen_addresses_are_understood_in_every_form") {
  struct {
    const char* text;
    const char* host;
    std::uint16_t port;
  } const rows[] = {{"127.0.0.1", "127.0.0.1", 10809},
                    {"127.0.0.1:10810", "127.0.0.1", 10810},
                    {"0.0.0.0:0", "0.0.0.0", 0},
                    {"localhost", "localhost", 10809},
                    {"host.example:65535", "host.example", 65535},
                    {"::1", "::1", 10809},
                    {"::", "::", 10809},
                    {"fe80::1%eth0", "fe80::1%eth0", 10809},
                    {"2001:db8:0:0:0:0:0:1", "2001:db8:0:0:0:0:0:1", 10809},
                    {"[::1]", "::1", 10809},
                    {"[::1]:0", "::1", 0},
                    {"[fe80::1%eth0]:1", "fe80::1%eth0", 1}};
  for (const auto& row : rows) {
    CAPTURE(row.text);
    CHECK(parse_listen(row.text) == tcp_address{row.host, row.port, true});
  }
}

TEST_CASE("a_listen_address_that_is_none_is_named") {
  const std::string not_a_port = " is not a number from 0 to 65535";
  CHECK(error_of({"-l", "host:65536", "f"}) == "--listen: '65536'" + not_a_port);
  CHECK(error_of({"-l", "host:nbd", "f"}) == "--listen: 'nbd'" + not_a_port);
  CHECK(error_of({"-l", "host:", "f"}) == "--listen: ''" + not_a_port);
  CHECK(error_of({"-l", "[::1]:", "f"}) == "--listen: ''" + not_a_port);
  CHECK(error_of({"-l", "host:-1", "f"}) == "--listen: '-1'" + not_a_port);
  CHECK(error_of({"-l", ":10809", "f"}) == "--listen: ':10809' has no host");
  CHECK(error_of({"-l", "[]:1", "f"}) == "--listen: '[]:1' has no host");
  CHECK(error_of({"-l", "[::1", "f"}) == "--listen: '[::1' should look like [ADDRESS]:PORT");
  CHECK(error_of({"-l", "[::1]10809", "f"}) == "--listen: '[::1]10809' should look like [ADDRESS]:PORT");
  CHECK(error_of({"--listen", "", "f"}) == "--listen: '' has no host");
}

TEST_CASE("a_unix_path_must_fit_in_a_socket_address") {
  const std::string longest(107, 'a'), too_long(108, 'a');
  CHECK(settings_of({"-u", longest.c_str(), "f"}).unix_paths.front() == longest);
  CHECK(error_of({"-u", too_long.c_str(), "f"}) == "--unix: '" + too_long + "' must be 1 to 107 bytes long");
  CHECK(error_of({"--unix", "", "f"}) == "--unix: '' must be 1 to 107 bytes long");
}

TEST_CASE("names_and_descriptions_are_utf_8_of_4096_bytes_at_most") {
  const std::string longest(4096, 'n'), too_long(4097, 'n');
  CHECK(settings_of({"-n", longest.c_str(), "f"}).export_name == longest);
  CHECK(error_of({"-n", too_long.c_str(), "f"}) == "--name: longer than 4096 bytes");
  CHECK(error_of({"-n", "\xff", "f"}) == "--name: not valid UTF-8 without NUL bytes");
  CHECK(settings_of({"-n", "", "f"}).export_name.empty());
  CHECK(settings_of({"-D", longest.c_str(), "f"}).description == longest);
  const std::string sentence = "--description: longer than 4096 bytes, or not valid UTF-8";
  CHECK(error_of({"-D", too_long.c_str(), "f"}) == sentence);
  CHECK(error_of({"-D", "\xc3", "f"}) == sentence);
}

TEST_CASE("the_size_of_a_new_file_must_make_sense") {
  CHECK(settings_of({"--create", "1", "f"}).create_size == 1U);
  CHECK(error_of({"--create", "0", "f"}) == "--create: a file of 0 bytes has nothing to serve");
  CHECK(error_of({"--create", "0G", "f"}) == "--create: a file of 0 bytes has nothing to serve");
  CHECK(error_of({"--create", "big", "f"}) == "--create: 'big' is no unit; use K, M, G or T");
  CHECK(error_of({"--create", "", "f"}) == "--create: '' is not a number from 0 to 9223372036854775807");
  CHECK(error_of({"--create", "1G", "-r", "f"}) == "--create: cannot be used with --read-only");
  CHECK(error_of({"--preallocate", "f"}) == "--preallocate: needs --create");
}

TEST_CASE("what_may_be_in_flight_is_from_1M_to_64G") {
  CHECK(error_of({"--max-in-flight", "1048575", "f"}) == "--max-in-flight: '1048575' is not from 1M to 64G");
  CHECK(error_of({"--max-in-flight", "65G", "f"}) == "--max-in-flight: '65G' is not from 1M to 64G");
  CHECK(error_of({"--max-in-flight", "1Q", "f"}) == "--max-in-flight: 'Q' is no unit; use K, M, G or T");
  CHECK(error_of({"--max-in-flight", "", "f"}) ==
        "--max-in-flight: '' is not a number from 0 to 9223372036854775807");
}

TEST_CASE("words_that_are_not_among_the_choices_are_named") {
  CHECK(settings_of({"--io", "direct", "f"}).direct);
  CHECK(error_of({"--io", "Direct", "f"}) == "--io: 'Direct' is neither direct nor buffered");
  CHECK(error_of({"--io", "", "f"}) == "--io: '' is neither direct nor buffered");
  for (const char* const level : {"debug", "info", "warn", "error", "off"})
    CHECK(settings_of({"--log-level", level, "f"}).log_level == level);
  CHECK(error_of({"--log-level", "loud", "f"}) ==
        "--log-level: 'loud' is not one of debug, info, warn, error, off");
}

TEST_CASE("a_network_that_is_none_is_named_with_its_knob") {
  CHECK(error_of({"--allow", "10.0.0.1/8", "f"}) ==
        "--allow: '10.0.0.1/8': the network of this length is 10.0.0.0/8");
  CHECK(error_of({"--allow", "", "f"}).find("--allow: '' is not a network") == 0);
  CHECK(error_of({"--allow", "::/0", "--allow", "localhost", "f"}).find("--allow: 'localhost'") == 0);
}

TEST_CASE("permissions_that_are_none_are_an_error") {
  for (const char* const mode : {"", "8", "0o600", "1777", "0668", "-1", "rw-rw----", "600 "}) {
    CAPTURE(mode);
    CHECK(error_of({"-u", "s", "--unix-mode", mode, "f"}) ==
          "--unix-mode: '" + std::string(mode) + "' is not from 0 to 0777, in octal");
  }
}

TEST_CASE("what_is_about_unix_sockets_goes_with_one") {
  CHECK(error_of({"--unix-mode", "0660", "f"}) == "--unix-mode: needs --unix");
  CHECK(error_of({"--unix-owner", "me", "-l", "::1", "f"}) == "--unix-owner: needs --unix");
}

// A variable that is not set must not come to mean root, or everybody.
TEST_CASE("an_empty_user_is_kept_as_one_and_not_taken_for_none") {
  CHECK(settings_of({"--user", "", "f"}).user == "");
  CHECK(settings_of({"-u", "s", "--unix-owner", "", "f"}).unix_owner == "");
}

TEST_CASE("a_command_line_that_cannot_be_read_names_the_argument") {
  CHECK(error_of({}) == "FILE is required");
  CHECK(error_of({""}) == "FILE: the name is empty");
  CHECK(error_of({"f", "g"}).find("g") != std::string::npos);
  CHECK(error_of({"--bogus", "f"}).find("--bogus") != std::string::npos);
  CHECK(error_of({"f", "--threads"}).find("--threads") != std::string::npos);
  CHECK(error_of({"--threads", "1", "--threads", "2", "f"}).find("--threads") != std::string::npos);
}

TEST_CASE("the_help_names_every_option") {
  const std::string text = help();
  for (const char* const knob : {"FILE",
                                 "-l,--listen",
                                 "-u,--unix",
                                 "-n,--name",
                                 "-D,--description",
                                 "-r,--read-only",
                                 "--create",
                                 "--preallocate",
                                 "--io",
                                 "--threads",
                                 "--max-connections",
                                 "--handshake-timeout",
                                 "--max-in-flight",
                                 "--queue-depth",
                                 "--drain-timeout",
                                 "--max-per-address",
                                 "--dead-peer-timeout",
                                 "--allow",
                                 "--unix-mode",
                                 "--unix-owner",
                                 "--user",
                                 "--no-sandbox",
                                 "--log-level",
                                 "--version",
                                 "-h,--help"}) {
    CAPTURE(knob);
    CHECK(text.find(knob) != std::string::npos);
  }
}

TEST_CASE("the_help_fits_a_screen") {
  std::istringstream text(help());
  int lines = 0;
  for (std::string line; std::getline(text, line); ++lines) {
    CAPTURE(line);
    CHECK(line.size() <= 100);
    CHECK((line.empty() || line.back() != ' '));
  }
  CHECK(lines <= 40);
}

TEST_CASE("the_help_says_where_keys_come_from") {
  CHECK(help().find("aionbd keygen") != std::string::npos);
}

TEST_CASE("the_version_is_one_line") {
  const std::string text = parse({"--version"}).instead.value().text;
  CHECK(text.find("aionbd ") == 0);
  CHECK(text.find('\n') == text.size() - 1);
  CHECK(text.size() > 8);
}

TEST_CASE("help_and_version_need_no_file") {
  CHECK(parse({"-h"}).instead);
  CHECK(parse({"--version"}).instead);
}
