// What a client said on a connection that it has lost, and what it says on the next one, on a disk that takes
// its time: it completes nothing until it is told to.
#include <algorithm>
#include <memory>

#include "tests/server/log_lines.hpp"
#include "tests/simulation/simulated_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using protocol::command;
using protocol::reply_mode;

namespace {

constexpr std::uint64_t size = 64 * 1024;
constexpr std::size_t much = std::size_t{1} << 20;
constexpr std::byte last{200};

storage::geometry file() {
  return {.size = size,
          .direct_end = size,
          .alignment = 512,
          .zeroing_granularity = 4096,
          .can_zero_range = true};
}

// Two requests of a client at once, and no time limit that a test comes to.
server::connection_limits narrow() {
  server::connection_limits limits = simulated_server::patient();
  limits.session.requests_max = 2;
  return limits;
}

// New sessions have waited long enough for the gone before they begin to.
server::connection_limits impatient() {
  server::connection_limits limits = narrow();
  limits.session.patience_with_the_gone = std::chrono::seconds(0);
  return limits;
}

struct slow_disk {
  explicit slow_disk(const server::connection_limits& limits = narrow(),
                     const storage::geometry& shape = file())
      : server(
            shape, 2, [](std::uint64_t) { return 0; }, limits) {}
  ~slow_disk() { server.settle(); }

  std::unique_ptr<simulated_client> client(std::size_t loop) {
    auto made =
        std::make_unique<simulated_client>(server, client_settings{.replies = mode, .loop_number = loop});
    let(*made);
    return made;
  }

  // Everything but the disk goes on.
  void let(simulated_client& by) {
    for (bool moved = true; moved;) {
      moved = by.say(much);
      moved |= by.hear(much);
      for (simulated_loop& each : server.loops) {
        while (each.run_one()) moved = true;
        moved |= each.drain();
      }
    }
  }

  // That client and its loop go on, and the disk; the other loop stands still.
  void let_only(simulated_client& by, simulated_loop& quick) {
    for (bool moved = true; moved;) {
      moved = by.say(much);
      moved |= by.hear(much);
      while (quick.run_one() || server.disk.step()) moved = true;
      moved |= quick.drain();
    }
  }

  static void write(simulated_client& by, std::byte value, std::uint64_t offset = 0) {
    by.ask({.what = command::write, .offset = offset}, byte_vector(4096, value));
  }
  // More than may be in flight, all to the same place.
  static void write_often(simulated_client& by) {
    for (int value = 1; value <= 6; ++value) write(by, static_cast<std::byte>(value));
  }
  // Of the first loop; it has hung up, and the disk has done nothing of it.
  std::unique_ptr<simulated_client> client_that_left_writes_behind() {
    auto gone = client(0);
    write_often(*gone);
    let(*gone);
    gone->hang_up();
    return gone;
  }
  bool holds(std::byte value) const {
    const auto image = server.disk.image();
    return std::all_of(image.begin(), image.begin() + 4096, [&](std::byte each) { return each == value; });
  }

  const reply_mode mode = GENERATE(reply_mode::simple, reply_mode::structured, reply_mode::extended);
  log_lines log;
  simulated_server server;
};

}  // namespace

TEST_CASE("rule 36: writes_that_waited_for_room_do_not_overtake_the_next_connections_in_every_mode") {
  slow_disk on;
  const std::size_t next_loop = GENERATE(0U, 1U);
  auto dead = on.client(0);
  slow_disk::write_often(*dead);
  on.let(*dead);
  REQUIRE(on.server.disk.in_flight() == 1);  // the second waits for its range, the others for room
  dead->hang_up();
  auto next = on.client(next_loop);
  slow_disk::write(*next, last);
  on.let(*next);
  const auto answers = next->all_answers();
  REQUIRE(answers.size() == 1);
  CHECK(answers.front().error == 0);
  CHECK(on.holds(last));
  next->hang_up();
}

TEST_CASE("rule 36: writes_that_nobody_has_read_yet_do_not_overtake_the_next_connections_in_every_mode") {
  slow_disk on;
  auto dead = on.client(0);
  slow_disk::write_often(*dead);
  while (dead->say(much)) {
  }
  dead->hang_up();
  // The other loop is quicker.
  simulated_client next(on.server, {.replies = on.mode, .loop_number = 1});
  slow_disk::write(next, last);
  on.let_only(next, on.server.loops[1]);
  CHECK(next.unanswered() == 1);
  CHECK(next.all_answers().size() == 1);
  CHECK(on.holds(last));
  next.hang_up();
}

TEST_CASE("rule 36: a_chain_of_lost_connections_is_kept_in_order_in_every_mode") {
  slow_disk on;
  std::byte value{10};
  for (std::size_t i = 0; i < 5; ++i) {
    auto dead = on.client(i % 2);
    slow_disk::write_often(*dead);
    value = static_cast<std::byte>(10 + i);
    slow_disk::write(*dead, value);
    while (dead->say(much)) {
    }
    dead->hang_up();
  }
  auto survivor = on.client(1);
  slow_disk::write(*survivor, last);
  CHECK(survivor->all_answers().size() == 1);
  CHECK(on.holds(last));
  survivor->hang_up();
}

TEST_CASE("rule 36: zeroes_that_go_in_steps_do_not_overtake_the_next_connections_writes_in_every_mode") {
  slow_disk on;
  auto dead = on.client(0);
  // The blocks inside first, then an edge.
  dead->ask({.what = command::write_zeroes, .offset = 0, .length = 4096 + 700});
  on.let(*dead);
  REQUIRE(on.server.disk.in_flight() == 1);
  dead->hang_up();
  auto next = on.client(1);
  slow_disk::write(*next, last, 4096);
  on.let(*next);
  CHECK(next->all_answers().size() == 1);
  CHECK(on.server.disk.image()[4096] == last);
  CHECK(on.server.disk.image()[4096 + 699] == last);
  next->hang_up();
}

TEST_CASE("a_client_that_is_there_keeps_no_new_session_waiting") {
  slow_disk on;
  auto there = on.client(0);
  slow_disk::write_often(*there);
  on.let(*there);
  auto next = on.client(1);
  slow_disk::write(*next, last, 8192);
  on.let(*next);
  CHECK(on.server.disk.in_flight() == 2);
  CHECK(next->all_answers().size() == 1);
  CHECK(there->all_answers().size() == 6);
  there->hang_up();
  next->hang_up();
}

TEST_CASE("what_is_only_read_keeps_no_new_session_waiting") {
  storage::geometry shape = file();
  shape.read_only = true;
  slow_disk on(narrow(), shape);
  auto gone = on.client(0);
  for (int i = 0; i < 6; ++i) gone->ask({.what = command::read, .offset = 0, .length = 4096});
  on.let(*gone);
  gone->hang_up();
  auto next = on.client(1);
  next->ask({.what = command::read, .offset = 8192, .length = 4096});
  on.let(*next);
  CHECK(on.server.disk.in_flight() == 3);
  CHECK(next->all_answers().size() == 1);
  next->hang_up();
}

// It would be the storage that has come to a halt, or a client that says no more and does not read.
TEST_CASE("a_new_session_does_not_wait_forever_and_those_it_waited_for_begin_nothing_more") {
  slow_disk on(impatient());
  const auto gone = on.client_that_left_writes_behind();
  auto next = on.client(1);
  slow_disk::write(*next, last, 8192);
  on.let(*next);
  CHECK(on.server.disk.in_flight() == 2);
  CHECK(next->all_answers().size() == 1);
  CHECK(on.log.count_with("unfinished requests of clients that left") == 1);
  // Of the six, the one that had its place to itself.
  CHECK(on.server.disk.count(storage::io_op::write) == 2);
  next->hang_up();
}

TEST_CASE("one_new_session_waits_for_the_gone_and_those_after_it_do_not") {
  slow_disk on(impatient());
  const auto gone = on.client_that_left_writes_behind();
  auto next = on.client(1);
  auto after = on.client(0);
  slow_disk::write(*after, last, 8192);
  on.let(*after);
  CHECK(on.server.disk.in_flight() == 2);
  CHECK(after->all_answers().size() == 1);
  CHECK(on.log.count_with("unfinished requests of clients that left") == 1);
  next->hang_up();
  after->hang_up();
}

TEST_CASE("a_client_that_says_no_more_and_does_not_read_ends_once_a_new_session_has_waited_long_enough") {
  slow_disk on(impatient());
  simulated_client half(on.server, {.replies = on.mode, .send_buffer = 1});
  on.let(half);
  for (int i = 0; i < 6; ++i) half.ask({.what = command::read, .offset = 0, .length = size});
  while (half.say(much)) {
  }
  half.say_no_more();
  on.server.settle();
  REQUIRE(on.server.connections() == 1);
  auto next = on.client(1);
  slow_disk::write(*next, last, 8192);
  CHECK(next->all_answers().size() == 1);
  CHECK(on.server.connections() == 1);
  CHECK(on.server.loops[0].loop.buffers.buffers_out() == 0);
  next->hang_up();
}

TEST_CASE("a_session_that_was_barred_lives_until_it_has_heard_of_it") {
  slow_disk on(impatient());
  simulated_loop& slow = on.server.loops[0];
  const auto gone = on.client_that_left_writes_behind();
  // What it has begun is done, and it is about to go on.
  while (on.server.disk.step() || slow.drain()) {
  }
  simulated_client next(on.server, {.replies = on.mode, .loop_number = 1});
  slow_disk::write(next, last, 8192);
  on.let_only(next, on.server.loops[1]);
  CHECK(next.unanswered() == 0);
  while (slow.run_one()) {
  }
  CHECK(on.server.connections() == 2);
  slow.drain();
  while (slow.run_one()) {
  }
  CHECK(on.server.connections() == 1);
  next.hang_up();
}

// It says no more, and would take its replies: nothing else keeps its session from going on.
TEST_CASE("a_session_that_was_barred_begins_nothing_more_even_before_it_has_heard_of_it") {
  slow_disk on(impatient());
  simulated_loop& slow = on.server.loops[0];
  auto half = on.client(0);
  for (int i = 0; i < 6; ++i) half->ask({.what = command::read, .offset = 0, .length = 4096});
  on.let(*half);
  REQUIRE(on.server.disk.count(storage::io_op::read) == 2);
  half->say_no_more();
  while (on.server.disk.step() || slow.drain()) {
  }
  simulated_client next(on.server, {.replies = on.mode, .loop_number = 1});
  slow_disk::write(next, last, 8192);
  on.let_only(next, on.server.loops[1]);
  CHECK(next.unanswered() == 0);
  while (slow.run_one()) {
  }
  CHECK(on.server.disk.count(storage::io_op::read) == 2);
  slow.drain();
  next.hang_up();
}

// Whoever looks on has waited for both.
TEST_CASE("a_session_that_waits_ends_when_it_is_barred_itself") {
  struct listener final : server::fence_listener {
    void way_is_free() noexcept override {}
    void was_barred() noexcept override {}
  } deaf;
  slow_disk on;
  // A step of a zeroing is not called off once it is with the disk, and keeps its session's place.
  const bool has_steps = GENERATE(false, true);
  const auto gone = has_steps ? on.client(0) : on.client_that_left_writes_behind();
  if (has_steps) gone->ask({.what = command::write_zeroes, .offset = 0, .length = 4096 + 700});
  on.let(*gone);
  gone->hang_up();
  auto waiting = on.client(1);
  slow_disk::write(*waiting, last);
  on.let(*waiting);
  server::fence::member third(on.server.exports.fence_of(on.server.info()), -1, on.server.loops[0].queue);
  waiting->say_no_more();
  REQUIRE_FALSE(third.enter(deaf));
  third.bar_those_ahead();
  CHECK(third.stop_waiting());
  on.let(*waiting);
  CHECK(waiting->is_at_end());
  CHECK(on.server.connections() == 1);  // whose write is with the disk
  CHECK(on.log.count_with("unfinished requests of clients that left") == 0);
  on.server.settle();
  CHECK(on.server.leftovers().empty());
  CHECK(on.server.disk.count(storage::io_op::write) == (has_steps ? 0 : 1));
}

TEST_CASE("what_new_sessions_say_of_those_they_waited_for_does_not_flood_the_log") {
  slow_disk on(impatient());
  on.server.loops[1].loop.troubles = server::rare_line(0);
  const auto gone = on.client_that_left_writes_behind();
  auto next = on.client(1);
  slow_disk::write(*next, last, 8192);
  CHECK(next->all_answers().size() == 1);
  CHECK(on.server.disk.count(storage::io_op::write) == 2);
  CHECK(on.log.count_with("unfinished requests of clients that left") == 0);
  next->hang_up();
}

TEST_CASE("how_long_last_replies_may_take_is_not_how_long_a_new_session_waits") {
  server::connection_limits limits = narrow();
  limits.session.linger = std::chrono::seconds(0);
  slow_disk on(limits);
  const auto gone = on.client_that_left_writes_behind();
  auto next = on.client(1);
  slow_disk::write(*next, last, 8192);
  on.let(*next);
  CHECK(on.server.disk.in_flight() == 1);
  CHECK(next->all_answers().size() == 1);
  CHECK(on.log.count_with("unfinished requests of clients that left") == 0);
  next->hang_up();
}

TEST_CASE("zeroes_that_a_new_session_has_waited_for_long_enough_go_no_further") {
  slow_disk on(impatient());
  auto gone = on.client(0);
  gone->ask({.what = command::write_zeroes, .offset = 0, .length = 4096 + 700});
  on.let(*gone);
  gone->hang_up();
  auto next = on.client(1);
  slow_disk::write(*next, last, 4096);
  CHECK(next->all_answers().size() == 1);
  CHECK(on.server.disk.image()[4096] == last);
  CHECK(on.server.disk.count(storage::io_op::write) == 1);
  next->hang_up();
}

TEST_CASE("a_session_that_waits_may_be_stopped_and_its_client_may_leave") {
  slow_disk on;
  const bool is_stopped = GENERATE(false, true);
  const auto dead = on.client_that_left_writes_behind();
  auto next = on.client(1);
  slow_disk::write(*next, last);
  on.let(*next);
  if (is_stopped) {
    next->connection().stop();
  } else {
    next->hang_up();
  }
  on.server.settle();
  CHECK(on.server.leftovers().empty());
  next->hang_up();
}
