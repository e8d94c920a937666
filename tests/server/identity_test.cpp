#include "server/identity.hpp"

#include <unistd.h>

#include "tests/support/catch.hpp"

using namespace aionbd::server;

namespace {

std::string error_of(const std::string& text) {
  try {
    (void)find_identity("--user", text);
    return "";
  } catch (const identity_error& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("a_user_is_found_by_name_and_by_number_with_its_own_group") {
  for (const char* const text : {"root", "0"}) {
    const identity found = find_identity("--user", text);
    CHECK(found.user == 0U);
    CHECK(found.group == 0U);
  }
}

TEST_CASE("a_group_is_taken_in_place_of_the_users_own") {
  CHECK(find_identity("--user", "root:12345").group == 12345U);
  CHECK(find_identity("--user", "12345:root").group == 0U);
  CHECK(find_identity("--user", "12345:root").user == 12345U);
  CHECK_FALSE(find_identity("--user", ":12345").user);
  CHECK(find_identity("--user", ":12345").group == 12345U);
}

TEST_CASE("a_number_that_the_system_does_not_know_is_a_user_without_a_group") {
  const identity found = find_identity("--user", "3123456789");
  CHECK(found.user == 3123456789U);
  CHECK_FALSE(found.group);
}

TEST_CASE("users_and_groups_that_are_none_are_named_with_their_knob") {
  CHECK(error_of("no-such-user") == "--user: there is no user 'no-such-user'");
  CHECK(error_of("root:no-such-group") == "--user: there is no group 'no-such-group'");
  // The number that means "leave it", and one more.
  CHECK(error_of("4294967295") == "--user: there is no user '4294967295'");
  CHECK(error_of("root:4294967295") == "--user: there is no group '4294967295'");
  CHECK(error_of("4294967296") == "--user: there is no user '4294967296'");
  CHECK(error_of("-1") == "--user: there is no user '-1'");
  for (const char* const text : {"", ":", "root:"}) {
    CHECK(error_of(text) ==
          "--user: '" + std::string(text) + "' should look like USER, USER:GROUP or :GROUP");
  }
}

TEST_CASE("only_a_user_with_a_group_can_be_become_and_only_by_root") {
  CHECK_THROWS_WITH(find_user_to_become(":0"), "--user: ':0' names no user");
  CHECK_THROWS_WITH(find_user_to_become("3123456789"),
                    "--user: nothing is known of user 3123456789: name a group as well, as in "
                    "3123456789:3123456789");
  CHECK_THROWS_AS(find_user_to_become(""), identity_error);
  if (::geteuid() == 0) {
    const auto found = find_user_to_become("12345:54321").value();
    CHECK(found.user == 12345);
    CHECK(found.group == 54321);
  } else {
    CHECK_THROWS_WITH(find_user_to_become("0:0"), "--user: only root can become '0:0'");
    const std::string self = std::to_string(::geteuid()) + ":" + std::to_string(::getegid());
    CHECK_FALSE(find_user_to_become(self));
  }
}
