#include "server/access_list.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <stdexcept>

#include "tests/support/catch.hpp"

using namespace aionbd::server;

namespace {

peer_address peer(const std::string& text) {
  sockaddr_storage raw{};
  void* const at = &raw;
  if (::inet_pton(AF_INET, text.c_str(), &static_cast<sockaddr_in*>(at)->sin_addr) == 1) {
    raw.ss_family = AF_INET;
  } else {
    REQUIRE(::inet_pton(AF_INET6, text.c_str(), &static_cast<sockaddr_in6*>(at)->sin6_addr) == 1);
    raw.ss_family = AF_INET6;
  }
  return as_peer(raw).value();
}

bool lets_in(const std::string& list, const std::string& who) {
  return is_allowed({parse_network(list)}, peer(who));
}

std::string error_of(const std::string& text) {
  try {
    (void)parse_network(text);
    return "";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("a_network_lets_in_its_first_and_last_address_and_neither_neighbour") {
  struct {
    const char* network;
    const char* before;
    const char* first;
    const char* last;
    const char* behind;
  } const rows[] = {
      {"10.0.0.1", "10.0.0.0", "10.0.0.1", "10.0.0.1", "10.0.0.2"},
      {"10.0.0.1/32", "10.0.0.0", "10.0.0.1", "10.0.0.1", "10.0.0.2"},
      {"10.0.0.2/31", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"},
      {"192.0.2.0/24", "192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"},
      {"192.0.2.128/25", "192.0.2.127", "192.0.2.128", "192.0.2.255", "192.0.3.0"},
      {"172.16.0.0/12", "172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"},
      {"128.0.0.0/1", "127.255.255.255", "128.0.0.0", "255.255.255.255", "127.0.0.1"},
      {"2001:db8::/32", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
       "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"},
      {"2001:db8::8000/113", "2001:db8::7fff", "2001:db8::8000", "2001:db8::ffff", "2001:db8::1:0"},
      {"::1", "::", "::1", "::1", "::2"},
      {"::ffff:192.0.2.0/120", "192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.network);
    CHECK_FALSE(lets_in(row.network, row.before));
    CHECK(lets_in(row.network, row.first));
    CHECK(lets_in(row.network, row.last));
    CHECK_FALSE(lets_in(row.network, row.behind));
  }
}

// nbd-server looked whether the address as text begins with the entry as text.
TEST_CASE("defect 2013-6410: addresses_that_only_begin_with_the_same_text_are_not_let_in") {
  CHECK_FALSE(lets_in("10.0.0.1", "10.0.0.10"));
  CHECK_FALSE(lets_in("10.0.0.1", "10.0.0.199"));
  CHECK_FALSE(lets_in("2001:db8::1", "2001:db8::10"));
  CHECK(lets_in("10.0.0.16/28", "10.0.0.17"));
  CHECK_FALSE(lets_in("10.0.0.16/28", "10.0.0.1"));
}

TEST_CASE("all_of_a_family_is_let_in_by_a_length_of_0_and_nothing_of_the_other") {
  CHECK(lets_in("0.0.0.0/0", "203.0.113.7"));
  CHECK_FALSE(lets_in("0.0.0.0/0", "2001:db8::1"));
  CHECK(lets_in("::/0", "2001:db8::1"));
  CHECK_FALSE(lets_in("::/0", "203.0.113.7"));
  CHECK_FALSE(lets_in("::/0", "::ffff:203.0.113.7"));
  CHECK_FALSE(lets_in("::/96", "0.0.0.1"));
}

TEST_CASE("an_ipv4_address_is_the_same_whether_it_comes_mapped_or_not") {
  CHECK(peer("::ffff:192.0.2.1") == peer("192.0.2.1"));
  CHECK(lets_in("192.0.2.0/24", "::ffff:192.0.2.1"));
  CHECK(lets_in("::ffff:192.0.2.1", "192.0.2.1"));
  CHECK(parse_network("::ffff:192.0.2.0/120") == parse_network("192.0.2.0/24"));
  // Of the same bytes, and another address.
  CHECK_FALSE(lets_in("192.0.2.1", "c000:201::"));
  CHECK_FALSE(lets_in("192.0.2.1", "::192.0.2.1"));
}

TEST_CASE("one_of_several_networks_is_enough_and_no_list_lets_everybody_in") {
  const std::vector<network> list = {parse_network("192.0.2.0/24"), parse_network("2001:db8::/32")};
  CHECK(is_allowed(list, peer("192.0.2.9")));
  CHECK(is_allowed(list, peer("2001:db8::9")));
  CHECK_FALSE(is_allowed(list, peer("198.51.100.9")));
  CHECK(is_allowed({}, peer("198.51.100.9")));
}

TEST_CASE("local_peers_are_not_subject_to_networks") {
  CHECK(is_allowed({parse_network("192.0.2.0/24")}, {.kind = peer_kind::local, .user = 1000}));
}

TEST_CASE("what_is_no_network_in_numbers_is_an_error") {
  for (const char* const text :
       {"", "/", "/24", "localhost", "10.0.0", "10.0.0.0.0", "10.0.0.256", "010.0.0.1", "10.1", " 10.0.0.1",
        "10.0.0.1 ", "0x0a000001", "167772161", "2001:db8::1::", "fe80::1%eth0", "[::1]", "::ffff:300.0.0.1",
        "10.0.0.0-10.0.0.9", "*"}) {
    CAPTURE(text);
    CHECK(error_of(text) ==
          "'" + std::string(text) + "' is not a network in numbers, such as 192.0.2.0/24 or 2001:db8::/32");
  }
  for (const char* const text : {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/-1", "10.0.0.0/8/8",
                                 "10.0.0.0/ 8", "10.0.0.0/255.0.0.0", "10.0.0.0/4294967304"}) {
    CAPTURE(text);
    CHECK(error_of(text) == "'" + std::string(text) + "': the length is not from 0 to 32");
  }
  CHECK(error_of("2001:db8::/129") == "'2001:db8::/129': the length is not from 0 to 128");
  CHECK(error_of("::ffff:0.0.0.0/95") ==
        "'::ffff:0.0.0.0/95': a mapped IPv4 network has a length of 96 or more");
  CHECK(error_of("::ffff:0.0.0.0/96").empty());
}

// Either the address or the length is a slip; to guess which would open more than was meant, or less.
TEST_CASE("an_address_with_bits_behind_the_length_is_an_error_that_says_the_network") {
  CHECK(error_of("10.0.0.1/8") == "'10.0.0.1/8': the network of this length is 10.0.0.0/8");
  CHECK(error_of("192.0.2.129/25") == "'192.0.2.129/25': the network of this length is 192.0.2.128/25");
  CHECK(error_of("2001:db8::1/64") == "'2001:db8::1/64': the network of this length is 2001:db8::/64");
}

TEST_CASE("clients_are_counted_by_ipv4_address_by_ipv6_network_of_64_bits_and_by_user") {
  CHECK(origin_of(peer("192.0.2.1")) != origin_of(peer("192.0.2.2")));
  CHECK(origin_of(peer("::ffff:192.0.2.1")) == origin_of(peer("192.0.2.1")));
  CHECK(origin_of(peer("2001:db8:0:1::1")) == origin_of(peer("2001:db8:0:1:ffff:ffff:ffff:ffff")));
  CHECK(origin_of(peer("2001:db8:0:1:ffff:ffff:ffff:ffff")) != origin_of(peer("2001:db8:0:2::")));
  const peer_address root{.kind = peer_kind::local, .user = 0}, other{.kind = peer_kind::local, .user = 1};
  CHECK(origin_of(root) == root);
  CHECK(origin_of(root) != origin_of(other));
  CHECK(origin_of(root) != origin_of(peer("0.0.0.0")));
  CHECK(origin_of(peer("::")) != origin_of(peer("0.0.0.0")));
}

TEST_CASE("addresses_are_told_as_people_write_them") {
  CHECK(text_of(peer("192.0.2.1")) == "192.0.2.1");
  CHECK(text_of(peer("::ffff:192.0.2.1")) == "192.0.2.1");
  CHECK(text_of(peer("2001:DB8:0::1")) == "2001:db8::1");
  CHECK(text_of({.kind = peer_kind::local, .user = 1000}) == "user 1000");
  CHECK(text_of_origin(origin_of(peer("2001:db8::1"))) == "2001:db8::/64");
  CHECK(text_of_origin(origin_of(peer("192.0.2.1"))) == "192.0.2.1");
}
