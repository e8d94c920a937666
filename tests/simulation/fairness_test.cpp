// Clients of one loop with very different appetites, on a disk that serves in order of arrival: counted in
// requests, as nothing here takes time.
#include <algorithm>

#include "tests/server/log_lines.hpp"
#include "tests/simulation/simulated_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using protocol::command;
using protocol::reply_mode;

namespace {

constexpr std::uint64_t size = std::uint64_t{1} << 20U;
constexpr std::size_t much = std::size_t{1} << 20;

struct shared_loop {
  shared_loop()
      : server({.size = size, .direct_end = size, .alignment = 512, .zeroing_granularity = 4096}, 1,
               [](std::uint64_t) { return 0; }),
        greedy(server, {.replies = reply_mode::structured}),
        modest(server, {.replies = reply_mode::structured}) {
    for (simulated_client* const each : {&greedy, &modest}) {
      (void)each->answer_to({.what = command::read, .offset = 0, .length = 512});
    }
  }
  ~shared_loop() {
    greedy.hang_up();
    modest.hang_up();
    server.settle();
  }

  // Everybody gets one turn: the loop, the disk and the clients.
  void turn() {
    greedy.say(much);
    modest.say(much);
    (void)server.loops[0].run_one();
    (void)server.disk.step();
    (void)server.loops[0].drain();
    greedy.hear(much);
    modest.hear(much);
  }

  // How many requests of the greedy one are answered while one of the modest one is under way.
  std::size_t answered_meanwhile(const protocol::request& asked, const byte_vector& payload) {
    (void)greedy.take_answers();
    modest.ask(asked, payload);
    std::size_t turns = 0;
    while (modest.unanswered() != 0) {
      REQUIRE(++turns < 100'000);
      turn();
    }
    return greedy.take_answers().size();
  }

  log_lines quiet;
  simulated_server server;
  simulated_client greedy, modest;
};

}  // namespace

TEST_CASE("a_client_with_thousands_of_requests_keeps_another_waiting_for_one_queue_of_it_at_most") {
  const command greedily = GENERATE(command::read, command::write);
  shared_loop on;
  const std::size_t queue = server::session_limits{}.requests_max;
  for (std::uint64_t i = 0; i < 20 * queue; ++i) {
    const protocol::request asked{.what = greedily, .offset = i % 1024 * 512, .length = 512};
    on.greedy.ask(asked, byte_vector(greedily == command::write ? 512 : 0));
  }
  while (on.server.disk.in_flight() < queue) {
    on.greedy.say(much);
    REQUIRE(on.server.loops[0].run_one());
  }
  const byte_vector payload(512, std::byte{1});
  std::size_t most = 0;
  for (std::uint64_t i = 0; i < 10; ++i) {
    const bool writes = i % 2 == 0;
    const protocol::request asked{
        .what = writes ? command::write : command::read, .offset = 700'000 + i, .length = 512};
    most = std::max(most, on.answered_meanwhile(asked, writes ? payload : byte_vector()));
  }
  // An unaligned write stands in the disk's queue twice, to read and to write.
  CHECK(most <= 2 * queue + queue / 4);
  CHECK(most > 0);
  CHECK(on.greedy.unanswered() > 0);
}
