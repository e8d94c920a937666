#include "server/server.hpp"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <numeric>

#include "tests/protocol/conversation.hpp"
#include "tests/server/failing_memory.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/running_server.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

bool is_served(client& peer) {
  peer.send(read_request(5, served_size - 512, 512));
  return peer.receive(reply_size + 512) == simple_reply(5, nbd::ok, byte_vector(512));
}

// The server's answer to a client that connects: its greeting, or nothing.
bool is_greeted(client& peer) {
  return peer.receive_some(18) == server_greeting();
}

}  // namespace

TEST_CASE("clients_are_dealt_out_evenly_to_the_loops", "[loops]") {
  running_server on({.threads = 3});
  std::vector<client> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(on.enter());
  auto counts = on.clients_of_loops();
  CHECK(std::count(counts.begin(), counts.end(), 2U) == 3);
  for (auto& each : clients) CHECK(is_served(each));
  // Those that go make room where they were.
  clients.erase(clients.begin(), clients.begin() + 2);
  REQUIRE(eventually([&] {
    counts = on.clients_of_loops();
    return std::accumulate(counts.begin(), counts.end(), std::size_t{0}) == 4;
  }));
  for (int i = 0; i < 5; ++i) clients.push_back(on.enter());
  counts = on.clients_of_loops();
  CHECK(std::count(counts.begin(), counts.end(), 3U) == 3);
}

TEST_CASE("rule 32: writes_of_several_clients_to_the_same_blocks_are_all_there", "[loops]") {
  running_server on({.threads = 3});
  std::vector<client> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(on.enter());
  const std::size_t length = 100, rounds = 40;
  const std::size_t stride = clients.size() * length;
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < clients.size(); ++i) {
      const auto seed = static_cast<std::uint32_t>(round * clients.size() + i);
      clients[i].send(write_request(round, round * stride + i * length, pattern(length, seed)));
    }
  }
  for (auto& each : clients) {
    std::map<std::uint64_t, std::size_t> expected;
    for (std::size_t round = 0; round < rounds; ++round) expected[round] = 0;
    for (const auto& [cookie, reply] : each.receive_replies(expected)) REQUIRE(reply.error == nbd::ok);
  }
  for (std::uint32_t i = 0; i < rounds * clients.size(); ++i)
    REQUIRE(read_file(on.file, i * length, length) == pattern(length, i));
}

TEST_CASE("rule 27: a_flush_on_one_connection_covers_writes_of_another_loop", "[loops]") {
  running_server on({.threads = 2});
  client one = on.enter(), other = on.enter();
  one.send(write_request(1, 10, pattern(5000)));
  REQUIRE(one.receive(reply_size) == simple_reply(1));
  other.send(joined(request(nbd::flush, 2), read_request(3, 10, 5000)));
  const auto replies = other.receive_replies({{2, 0}, {3, 5000}});
  CHECK(replies.at(2).error == nbd::ok);
  CHECK((replies.at(3).data == pattern(5000)));
}

TEST_CASE("clients_come_and_go_on_several_loops", "[loops]") {
  running_server on({.threads = 4});
  for (int round = 0; round < 20; ++round) {
    std::vector<client> clients;
    for (int i = 0; i < 5; ++i) clients.push_back(on.connect());
    for (std::size_t i = 0; i < clients.size(); ++i) {
      if (i == 1) continue;  // says nothing
      clients[i].send(joined(flags_request(3), joined(go_request(""), read_request(1, 0, 100'000))));
      if (i == 2) clients[i].close();  // does not wait for the answer
      if (i == 3) (void)clients[i].receive_some(1);
    }
  }
  client last = on.enter();
  CHECK(is_served(last));
}

TEST_CASE("as_many_clients_as_the_limit_allows_are_served_and_one_more_is_refused", "[loops]") {
  running_server on({.threads = 2, .connections_max = 3});
  std::vector<client> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(on.enter());
  client refused = on.connect();
  CHECK(refused.is_at_end());
  CHECK(on.log.count_with("the limit of --max-connections") == 1);
  for (auto& each : clients) CHECK(is_served(each));
}

TEST_CASE("as_many_clients_of_one_user_as_the_limit_allows_are_served_and_one_more_is_refused") {
  running_server on({.connections_max = 64, .per_address_max = 2});
  client one = on.enter();
  std::optional<client> other(on.enter());
  client refused = on.connect();
  CHECK(refused.is_at_end());
  CHECK(on.log.count_with("2 clients from user " + std::to_string(::getuid()) +
                          " are connected, the limit of --max-per-address") == 1);
  other.reset();
  CHECK(eventually([&] {
    client next = on.connect();
    return is_greeted(next);
  }));
  CHECK(is_served(one));
}

// A client that comes again and again would fill the log.
TEST_CASE("of_clients_that_are_refused_all_the_time_the_log_says_little") {
  running_server on({.connections_max = 1});
  client present = on.enter();
  for (int i = 0; i < 200; ++i) {
    client refused = on.connect();
    REQUIRE(refused.is_at_end());
  }
  CHECK(on.log.count_with("refused a client") >= 1);
  CHECK(on.log.count_with("refused a client") < 100);
}

TEST_CASE("a_client_for_whom_there_is_no_memory_is_turned_away_and_not_counted") {
  running_server on({.connections_max = 1});
  {
    // What make_shared asks for: the object behind two counters and the pointer to their functions.
    const failing_memory none(sizeof(server::connection) + 16);
    client refused = on.connect();
    CHECK(refused.is_at_end());
  }
  CHECK(eventually([&] {
    client next = on.connect();
    return is_greeted(next);
  }));
}

TEST_CASE("whatever_there_is_no_memory_for_when_a_client_comes_the_next_one_is_served") {
  running_server on({.connections_max = 1});
  {
    client first = on.connect();
    REQUIRE(is_greeted(first));  // it has started
  }
  for (std::size_t size = 8; size <= 1024; size += 8) {
    try {
      const failing_memory none(size);
      client one = on.connect();
      (void)is_greeted(one);
    } catch (const std::bad_alloc&) {
      // Ours, in the same process.
    }
  }
  CHECK(eventually([&] {
    client next = on.connect();
    return is_greeted(next);
  }));
}

TEST_CASE("clients_that_go_make_room_however_they_went", "[loops]") {
  running_server on({.threads = 2, .connections_max = 2});
  for (int round = 0; round < 5; ++round) {
    client one = on.enter();
    std::optional<client> other(on.connect());
    REQUIRE(is_greeted(*other));
    client refused = on.connect();
    CHECK(refused.is_at_end());
    switch (round % 4) {
      case 0:
        one.send(disconnect());
        break;
      case 1:
        one.send(byte_vector(28));
        break;
      case 2:
        one.send(read_request(1, 0, 1 << 20));
        break;
      default:
        break;
    }
    one.close();
    other.reset();
    // Room is there as soon as the server has noticed.
    CHECK(eventually([&] {
      client next = on.connect();
      return is_greeted(next);
    }));
    CHECK(eventually([&] {
      const auto counts = on.clients_of_loops();
      return std::accumulate(counts.begin(), counts.end(), std::size_t{0}) == 0;
    }));
    // The sockets are gone; the count follows at once.
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_CASE("a_client_in_the_handshake_counts_as_one") {
  running_server on({.connections_max = 1});
  client silent = on.connect();
  REQUIRE(is_greeted(silent));
  client refused = on.connect();
  CHECK(refused.is_at_end());
}

// UndefinedBehaviorSanitizer, which comes with this one, needs descriptors itself and errs without them.
#ifndef __SANITIZE_ADDRESS__
TEST_CASE("without_descriptors_for_a_client_the_server_tries_again_without_spinning") {
  running_server on;
  client served = on.enter();
  // Connected, before there are none left, to nobody yet.
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  client waiting(fd, [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); });
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  on.socket.copy(address.sun_path, sizeof address.sun_path - 1);

  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  const int connected =
      ::connect(fd, static_cast<const sockaddr*>(static_cast<const void*>(&address)), sizeof address);
  std::this_thread::sleep_for(std::chrono::milliseconds(550));
  const bool still_served = is_served(served);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);

  REQUIRE(connected == 0);
  CHECK(still_served);
  // At most one line a second, however often it was tried.
  const auto lines = on.log.count_with("Too many open files; trying again in a moment");
  CHECK(lines >= 1);
  CHECK(lines <= 3);
  CHECK(is_greeted(waiting));
}
#endif

TEST_CASE("a_server_that_never_ran_leaves_no_socket") {
  const temporary_folder folder;
  const temporary_folder sockets(temporary_folder::place::system);
  const std::string file = folder.path_of("served"), path = sockets.path_of("a.sock");
  make_sparse_file(file, 4096);
  server::exports served;
  served.add("", "", storage::block_file::open({.path = file, .create_size = {}}));
  server::config settings;
  settings.unix_paths = {path};
  {
    const server::server idle(settings, served);
    CHECK(std::filesystem::exists(path));
    CHECK(idle.listeners().size() == 1);
  }
  CHECK_FALSE(std::filesystem::exists(path));
}
