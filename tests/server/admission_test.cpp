#include "server/admission.hpp"

#include <atomic>
#include <thread>

#include "tests/support/catch.hpp"

using namespace aionbd::server;

namespace {

peer_address ipv4(std::uint8_t last) {
  return {.kind = peer_kind::ipv4, .bytes = {192, 0, 2, last}};
}

peer_address ipv6(std::uint8_t network, std::uint8_t last) {
  peer_address who{.kind = peer_kind::ipv6, .bytes = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, network}};
  who.bytes[15] = last;
  return who;
}

peer_address user(uid_t number) {
  return {.kind = peer_kind::local, .user = number};
}

}  // namespace

TEST_CASE("as_many_as_the_limit_are_let_in_and_one_more_is_not_until_one_leaves") {
  admission door({.connections_max = 3, .per_address_max = 3});
  for (std::uint8_t i = 1; i <= 3; ++i) CHECK_FALSE(door.enter(ipv4(i)));
  CHECK(door.enter(ipv4(4)) == "3 clients are connected, the limit of --max-connections");
  CHECK(door.present() == 3);
  CHECK(door.leave(ipv4(2)) == 2);
  CHECK_FALSE(door.enter(ipv4(4)));
  CHECK(door.enter(ipv4(2)));
}

TEST_CASE("as_many_as_the_limit_per_address_are_let_in_and_one_more_is_not_until_one_leaves") {
  struct {
    peer_address first, same, other;
    const char* sentence;
  } const rows[] = {
      {ipv4(1), ipv4(1), ipv4(2), "2 clients from 192.0.2.1 are connected, the limit of --max-per-address"},
      {ipv6(1, 1), ipv6(1, 2), ipv6(2, 1),
       "2 clients from 2001:db8:0:1::/64 are connected, the limit of --max-per-address"},
      {user(1000), user(1000), user(0),
       "2 clients from user 1000 are connected, the limit of --max-per-address"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.sentence);
    admission door({.connections_max = 64, .per_address_max = 2});
    CHECK_FALSE(door.enter(row.first));
    CHECK_FALSE(door.enter(row.same));
    CHECK(door.enter(row.first) == row.sentence);
    CHECK(door.enter(row.same) == row.sentence);
    // Others are not held up by it.
    CHECK_FALSE(door.enter(row.other));
    CHECK(door.present() == 3);
    CHECK(door.leave(row.same) == 2);
    CHECK_FALSE(door.enter(row.first));
    CHECK(door.enter(row.same));
  }
}

TEST_CASE("who_was_refused_is_not_counted") {
  admission door({.connections_max = 2, .per_address_max = 1});
  CHECK_FALSE(door.enter(ipv4(1)));
  for (int i = 0; i < 10; ++i) CHECK(door.enter(ipv4(1)));
  CHECK(door.present() == 1);
  CHECK_FALSE(door.enter(ipv4(2)));
  for (int i = 0; i < 10; ++i) CHECK(door.enter(ipv4(3)));
  CHECK(door.leave(ipv4(1)) == 1);
  CHECK(door.leave(ipv4(2)) == 0);
  CHECK_FALSE(door.enter(ipv4(3)));
}

TEST_CASE("who_is_in_no_network_of_the_list_is_refused_and_takes_nobodys_place") {
  admission door({.connections_max = 1, .allowed = {parse_network("192.0.2.1")}});
  CHECK(door.enter(ipv4(2)) == "192.0.2.2 is in none of the --allow networks");
  CHECK(door.enter(ipv6(1, 1)) == "2001:db8:0:1::1 is in none of the --allow networks");
  CHECK(door.present() == 0);
  CHECK_FALSE(door.enter(ipv4(1)));
}

TEST_CASE("coming_and_going_on_several_threads_is_counted_right", "[loops]") {
  admission door({.connections_max = 5, .per_address_max = 2});
  std::atomic<unsigned> let_in = 0;
  std::vector<std::thread> threads;
  for (std::uint8_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 2000; ++round) {
        if (door.enter(ipv4(i / 2))) continue;
        ++let_in;
        door.leave(ipv4(i / 2));
      }
    });
  }
  for (auto& each : threads) each.join();
  CHECK(let_in > 0);
  CHECK(door.present() == 0);
  for (std::uint8_t i = 0; i < 2; ++i) {
    CHECK_FALSE(door.enter(ipv4(i)));
    CHECK_FALSE(door.enter(ipv4(i)));
    CHECK(door.enter(ipv4(i)));
  }
}
