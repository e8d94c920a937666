// Every allocation of a whole session fails once, each in a run of its own.
#include "tests/simulation/refused_memory.hpp"

#include <algorithm>
#include <cstddef>

#include "tests/server/log_lines.hpp"
#include "tests/simulation/simulated_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using protocol::command;
using protocol::reply_mode;

namespace {

constexpr std::uint32_t enomem = 12;
constexpr std::size_t size = 160 * 1024 + 100;

storage::geometry sparse_file() {
  return {.size = size,
          .direct_end = 160 * 1024,
          .alignment = 512,
          .zeroing_granularity = 4096,
          .may_have_holes = true,
          .can_punch_hole = true};
}

// Something of everything that needs memory: writes that wait for each other, reads that leave out holes,
// long lists of extents, zeroes with edges.
void ask_for_everything(simulated_client& client) {
  const byte_vector payload(3000, std::byte{5});
  for (const std::uint64_t offset : {100U, 700U, 1500U, 70'000U}) {
    client.ask({.what = command::write, .offset = offset}, payload);
  }
  client.ask({.what = command::read, .offset = 0, .length = size});
  client.ask({.what = command::write_zeroes, .offset = 1000, .length = 50'000});
  client.ask({.what = command::trim, .offset = 65'536, .length = 65'536});
  client.ask({.what = command::flush});
  client.ask({.what = command::read, .offset = 4096, .length = 100'000});
  client.ask({.what = command::write_zeroes, .offset = size - 200, .length = 200});
  if (client.mode() == reply_mode::simple) return;
  client.ask({.what = command::block_status, .offset = 0, .length = size});
}

// Until nothing moves. The end of the stream is not always the client's.
void play(simulated_server& server, simulated_client& client) {
  for (bool moved = true; moved;) {
    moved = client.say(size);
    moved |= server.settle();
    moved |= client.hear(size);
  }
}

bool is_served(simulated_server& server, simulated_client& client) {
  client.ask({.what = command::read, .offset = 8192, .length = 512});
  play(server, client);
  return client.take_answers().size() == 1;
}

// False when the session needs no more than n allocations.
bool survives_without_the_nth(std::size_t n, reply_mode mode, int send_buffer, bool says_goodbye) {
  simulated_server server(sparse_file(), 1, [](std::uint64_t limit) { return limit - 1; });
  server.disk.make(storage::extent_kind::data, 32'768, 8192);
  simulated_client neighbour(server, {.replies = mode});
  REQUIRE(is_served(server, neighbour));
  bool happened = false;
  {
    const refused_memory refusal(n);
    simulated_client client(server, {.replies = mode, .send_buffer = send_buffer});
    ask_for_everything(client);
    if (says_goodbye) client.say_goodbye();
    play(server, client);
    happened = refusal.happened();
    REQUIRE(client.complaint() == "");
    // Either the connection has come to its end, or everything was answered.
    const bool is_whole = client.unanswered() == 0;
    REQUIRE((is_whole || (happened && client.is_at_end())));
    for (const answer& each : client.take_answers()) {
      REQUIRE((each.error == 0 || (happened && each.error == enomem)));
    }
    client.hang_up();
    server.settle();
  }
  REQUIRE(is_served(server, neighbour));
  neighbour.hang_up();
  server.settle();
  REQUIRE(server.leftovers() == "");
  return happened;
}

}  // namespace

TEST_CASE("whichever_allocation_fails_requests_are_answered_or_the_connection_ends_and_others_go_on") {
  const log_lines quiet;
  const reply_mode mode = GENERATE(reply_mode::simple, reply_mode::structured, reply_mode::extended);
  const int send_buffer = GENERATE(0, 1);
  const bool says_goodbye = GENERATE(false, true);
  std::size_t n = 0;
  for (bool more = true; more; ++n) {
    CAPTURE(mode, send_buffer, says_goodbye, n);
    more = survives_without_the_nth(n, mode, send_buffer, says_goodbye);
  }
  CHECK(n > 60);
}
