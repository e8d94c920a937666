// How the server stops: by SIGTERM or SIGINT, in good order, within its time.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "server/server.hpp"
#include "tests/protocol/conversation.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/running_server.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

constexpr std::size_t large = 1 << 20;

// More replies than a socket holds, so that some are in flight for as long as the client likes.
void ask_for_much(client& peer) {
  for (std::uint64_t cookie = 0; cookie < 8; ++cookie) peer.send(read_request(cookie, 0, large));
}

const std::map<std::uint64_t, std::size_t> much = {{0, large}, {1, large}, {2, large}, {3, large},
                                                   {4, large}, {5, large}, {6, large}, {7, large}};

// Of the first signal.
bool has_heard(const running_server& on) {
  return on.log.count_with("finishing what is in flight") == 1;
}

}  // namespace

TEST_CASE("a_server_without_clients_stops_at_once", "[loops]") {
  const int number = GENERATE(SIGTERM, SIGINT);
  running_server on({.threads = 3, .drain_timeout = std::chrono::seconds(60)});
  REQUIRE(eventually([&] { return std::filesystem::exists(on.socket); }));
  running_server::signal(number);
  CHECK(on.stops());
  CHECK_FALSE(std::filesystem::exists(on.socket));
  CHECK(on.log.count_with("stopped") == 1);
}

// The accept that the stop cancelled was left in the first loop with a socket of the second, and the second
// was destroyed before it.
TEST_CASE("an_accept_that_a_stop_cancels_does_not_outlive_the_loop_it_was_for", "[loops]") {
  running_server on({.threads = 3});
  on.enter().close();  // to the first loop; the next client is for the second
  REQUIRE(eventually([&] { return on.log.count_with("closed the connection without NBD_CMD_DISC") == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  running_server::signal(SIGTERM);
  CHECK(on.stops());
}

TEST_CASE("rule 35: idle_clients_do_not_keep_a_stopping_server", "[loops]") {
  running_server on({.threads = 3, .drain_timeout = std::chrono::seconds(60)});
  std::vector<client> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(on.enter());
  running_server::signal(SIGTERM);
  for (auto& each : clients) CHECK(each.is_at_end());
  CHECK(on.stops());
}

TEST_CASE("rule 35: what_is_in_flight_is_answered_before_the_server_stops", "[loops]") {
  running_server on({.threads = 2, .drain_timeout = std::chrono::seconds(60)});
  std::vector<client> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(on.enter());
  for (auto& each : clients) ask_for_much(each);
  // One reply says that the requests before it were seen.
  std::vector<byte_vector> begun;
  for (auto& each : clients) begun.push_back(each.receive(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  running_server::signal(SIGTERM);
  REQUIRE(eventually([&] { return has_heard(on); }));
  for (auto& each : clients) {
    // The first byte was received already.
    const std::size_t rest = 8 * (reply_size + large) - 1;
    CHECK(each.receive(rest).size() == rest);
    CHECK(each.is_at_end());
    each.close();
  }
  CHECK(on.stops());
}

TEST_CASE("rule 35: requests_that_come_while_the_server_stops_are_eshutdown", "[loops]") {
  running_server on({.threads = 2, .drain_timeout = std::chrono::seconds(60)});
  client peer = on.enter();
  ask_for_much(peer);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  running_server::signal(SIGTERM);
  REQUIRE(eventually([&] { return has_heard(on); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the loop of the client learns of it
  peer.send(write_request(8, 0, pattern(5000)));
  auto expected = much;
  expected[8] = 0;
  const auto replies = peer.receive_replies(expected);
  CHECK(replies.at(0).error == nbd::ok);
  CHECK(replies.at(8).error == nbd::eshutdown);
  CHECK(peer.is_at_end());
  peer.close();
  CHECK(on.stops());
  CHECK((read_file(on.file, 0, 5000) == byte_vector(5000)));
}

TEST_CASE("rule 35: a_client_in_the_handshake_hears_of_the_shutdown", "[loops]") {
  running_server on({.threads = 2, .drain_timeout = std::chrono::seconds(60)});
  client peer = on.connect();
  peer.send(flags_request(3));
  REQUIRE(peer.receive(18) == server_greeting());
  running_server::signal(SIGTERM);
  REQUIRE(eventually([&] { return has_heard(on); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  peer.send(go_request(""));
  const byte_vector expected = reply(7, err_shutdown), answer = peer.receive(expected.size());
  CHECK(byte_vector(answer.begin(), answer.begin() + 16) ==
        byte_vector(expected.begin(), expected.begin() + 16));
  CHECK(on.stops());
}

TEST_CASE("rule 35: clients_that_do_not_finish_are_cut_off_at_the_deadline", "[loops]") {
  running_server on({.threads = 2, .drain_timeout = std::chrono::seconds(1)});
  client one = on.enter(), other = on.enter();
  ask_for_much(one);
  ask_for_much(other);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const auto begin = std::chrono::steady_clock::now();
  running_server::signal(SIGTERM);
  CHECK(on.stops());
  const auto taken = std::chrono::steady_clock::now() - begin;
  CHECK(taken >= std::chrono::milliseconds(900));
  CHECK(taken < std::chrono::seconds(5));
  CHECK(on.log.count_with("2 clients did not finish in time and are cut off") == 1);
}

TEST_CASE("rule 35: clients_that_arrive_while_the_server_is_told_to_stop_do_not_keep_it", "[loops]") {
  for (int round = 0; round < 2; ++round) {
    running_server on({.threads = 3, .drain_timeout = std::chrono::seconds(60)});
    std::vector<client> clients;
    for (int i = 0; i < 6; ++i) {
      clients.push_back(on.connect());
      clients.back().send(joined(flags_request(3), go_request("")));
    }
    running_server::signal(SIGTERM);
    for (auto& each : clients) {
      while (!each.receive_some(4096).empty()) {
      }
      each.close();
    }
    CHECK(on.stops());
  }
}

TEST_CASE("a_second_signal_ends_the_process_at_once") {
  const temporary_folder sockets(temporary_folder::place::system);
  const std::string note = sockets.path_of("socket");
  const pid_t child = ::fork();
  if (child == 0) {
    running_server on({.drain_timeout = std::chrono::seconds(60)});
    client peer = on.enter();
    ask_for_much(peer);
    running_server::signal(SIGTERM);
    // It no longer listens, so it has heard of the first.
    if (!eventually([&] { return has_heard(on); })) ::_exit(99);
    running_server::signal(SIGTERM);
    std::this_thread::sleep_for(std::chrono::seconds(10));
    ::_exit(98);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == EXIT_FAILURE);
}
