#include "server/psk_file.hpp"

#include <stdexcept>

#include "tests/support/catch.hpp"

using namespace aionbd::server;

namespace {

constexpr const char* good_key = "00112233445566778899aabbccddeeff";

std::string complaint_about(const std::string& content) {
  try {
    (void)parse_pre_shared_keys("keys.psk", content);
  } catch (const std::runtime_error& wrong) {
    return wrong.what();
  }
  return "";
}

}  // namespace

TEST_CASE("pre_shared_keys_are_read_as_gnutls_writes_them") {
  const auto read = parse_pre_shared_keys("keys.psk", "alice:" + std::string(good_key) +
                                                          "\n\nbob:00FFff11aabbccddeeff001122334455\r\n"
                                                          "\n");
  REQUIRE(read.by_user.size() == 2);
  CHECK(read.by_user.at("alice").size() == 16);
  CHECK(read.by_user.at("alice").substr(0, 2) == std::string("\x00\x11", 2));
  CHECK(read.by_user.at("bob").substr(0, 4) == std::string("\x00\xff\xff\x11", 4));
}

TEST_CASE("a_pre_shared_keys_user_may_be_written_in_digits") {
  const auto read = parse_pre_shared_keys("keys.psk", "#c3a43a:" + std::string(good_key) + "\n");
  CHECK(read.by_user.count("\xc3\xa4:") == 1);
}

TEST_CASE("a_wrong_line_of_pre_shared_keys_is_named") {
  const std::string good = "alice:" + std::string(good_key) + "\n";
  CHECK(complaint_about(good + "bob\n") == "keys.psk, line 2: not a user, a colon and a key");
  CHECK(complaint_about(":" + std::string(good_key)).find("keys.psk, line 1: the user's name") == 0);
  CHECK(complaint_about("#xy:" + std::string(good_key)).find("keys.psk, line 1: the user's name") == 0);
  CHECK(complaint_about("#00:" + std::string(good_key)).find("keys.psk, line 1: the user's name") == 0);
  for (const char* const key : {"", "0", "0g", "00 11", "0x00"}) {
    CAPTURE(key);
    CHECK(complaint_about(good + "\nbob:" + key + "\n") ==
          "keys.psk, line 3: the key is not an even number of hexadecimal digits");
  }
  CHECK(complaint_about(good + good) == "keys.psk, line 2: this user has a key already");
}

TEST_CASE("a_file_without_pre_shared_keys_is_an_error") {
  CHECK(complaint_about("") == "keys.psk has no keys");
  CHECK(complaint_about("\n\n") == "keys.psk has no keys");
}

TEST_CASE("pre_shared_keys_have_limits") {
  const auto line = [](std::size_t user, std::size_t key) {
    return std::string(user, 'u') + ":" + std::string(2 * key, 'a') + "\n";
  };
  CHECK(complaint_about(line(256, 512)).empty());
  CHECK(complaint_about(line(257, 16)).find("longer than 256 bytes") != std::string::npos);
  CHECK(complaint_about(line(1, 513)).find("longer than 512 bytes") != std::string::npos);
}

TEST_CASE("a_short_pre_shared_key_is_served_with_a_warning") {
  const auto read =
      parse_pre_shared_keys("keys.psk", "a:" + std::string(32, 'a') + "\nb:" + std::string(30, 'a'));
  REQUIRE(read.warnings.size() == 1);
  CHECK(read.warnings[0] == "keys.psk, line 2: a key of 15 bytes may be guessed; 16 are better");
  CHECK(read.by_user.size() == 2);
}

TEST_CASE("a_pre_shared_key_that_is_written_is_read_again") {
  const std::string key("\x00\x7f\xff", 3);
  CHECK(psk_line("alice", key) == "alice:007fff");
  CHECK(parse_pre_shared_keys("x", psk_line("alice", key)).by_user.at("alice") == key);
  CHECK(is_psk_user("alice@example.org"));
  for (const char* const wrong : {"", "a b", "a:b", "#61", "a\n", "\xc3\xa4"})
    CHECK_FALSE(is_psk_user(wrong));
}
