// Sessions on a disk in memory: what no real disk does when a test wants it.
#include <algorithm>
#include <cerrno>

#include "tests/server/log_lines.hpp"
#include "tests/simulation/simulated_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using protocol::command;
using protocol::reply_mode;
using storage::io_op;
namespace flag = protocol::command_flag;

namespace {

constexpr std::uint32_t eio = 5, enospc = 28, enotsup = 95;
constexpr std::uint64_t block = 512;

storage::geometry file_of(std::uint64_t size) {
  return {.size = size,
          .direct_end = size / block * block,
          .alignment = block,
          .zeroing_granularity = 4096,
          .can_punch_hole = true,
          .can_zero_range = true};
}

storage::geometry file_that_must_be_written(std::uint64_t size) {
  storage::geometry shape = file_of(size);
  shape.can_punch_hole = shape.can_zero_range = false;
  return shape;
}

// A server whose disk carries everything out in order, and one client.
struct dialogue {
  explicit dialogue(const storage::geometry& shape, reply_mode mode = reply_mode::structured)
      : server(shape, 1, [](std::uint64_t) { return 0; }), client(server, {.replies = mode}) {
    server.disk.fill(byte_vector(shape.size, old));
  }
  ~dialogue() {
    client.hang_up();
    server.settle();
  }

  answer ask(command what, std::uint64_t offset, std::uint64_t length, std::uint16_t flags = 0) {
    return client.answer_to({.what = what, .flags = flags, .offset = offset, .length = length});
  }
  answer write(std::uint64_t offset, std::uint64_t length, std::uint16_t flags = 0) {
    return client.answer_to({.what = command::write, .flags = flags, .offset = offset},
                            byte_vector(length, fresh));
  }
  bool is_unchanged() const {
    return std::ranges::all_of(server.disk.image(), [](std::byte each) { return each == old; });
  }

  static constexpr std::byte old{7}, fresh{9};
  log_lines log;
  simulated_server server;
  simulated_client client;
};

reply_mode each_mode() {
  return GENERATE(reply_mode::simple, reply_mode::structured, reply_mode::extended);
}
reply_mode chunked_mode() {
  return GENERATE(reply_mode::structured, reply_mode::extended);
}

}  // namespace

// --- A disk that finishes what it is asked for at once

TEST_CASE("what_finishes_at_once_is_answered_without_a_wake_up_and_before_the_burst_is_over") {
  constexpr std::size_t requests = 60;
  dialogue talk(file_of(64 * 1024), each_mode());
  CHECK(talk.write(0, 512).error == 0);
  talk.server.disk.finish_at_once(true);
  for (std::size_t i = 0; i < requests; ++i) {
    talk.client.ask({.what = command::read, .offset = i * block, .length = block});
  }
  talk.client.say(1 << 20);
  simulated_loop& loop = talk.server.loops[0];
  while (loop.run_one()) {  // and no drain
  }
  talk.client.hear(1 << 20);
  CHECK(talk.client.unanswered() == 0);
  CHECK(talk.client.take_answers().size() == requests);
  CHECK(loop.queue.most_outstanding() <= 16);
}

// --- Failed syncs

TEST_CASE("rule 29: a_client_that_was_lost_before_it_heard_of_a_failed_sync_hears_of_it_when_it_is_back") {
  dialogue talk(file_of(64 * 1024), each_mode());
  simulated_client lost(talk.server, {});
  REQUIRE(lost.answer_to({.what = command::read, .offset = 0, .length = 512}).error == 0);
  talk.server.disk.fail_nth(io_op::sync, 0, EIO);
  const bool has_asked = GENERATE(false, true);
  if (has_asked) {
    lost.ask({.what = command::flush});  // and does not wait for the answer
    lost.say(1 << 20);
    simulated_loop& loop = talk.server.loops[0];
    while (loop.run_one()) {
    }
  } else {
    CHECK(talk.ask(command::flush, 0, 0).error == eio);  // somebody else's
  }
  lost.hang_up();
  talk.server.settle();
  simulated_client back(talk.server, {});
  CHECK(back.answer_to({.what = command::flush}).error == eio);
  CHECK(back.answer_to({.what = command::flush}).error == 0);
  back.hang_up();
}

// --- FAST_ZERO

TEST_CASE("rule 30: fast_zero_is_enotsup_before_anything_changes_where_zeroes_must_be_written") {
  dialogue talk(file_that_must_be_written(64 * 1024 + 100), each_mode());
  for (const std::uint16_t more : {std::uint16_t{0}, flag::no_hole, flag::fua}) {
    const auto flags = static_cast<std::uint16_t>(flag::fast_zero | more);
    CHECK(talk.ask(command::write_zeroes, 0, 64 * 1024, flags).error == enotsup);
    CHECK(talk.ask(command::write_zeroes, 100, 30'000, flags).error == enotsup);
    CHECK(talk.is_unchanged());
    CHECK(talk.server.disk.log().empty());
  }
  CHECK(talk.log.count_with("failed") == 0);  // an answer, and no failure
  CHECK(talk.ask(command::write_zeroes, 100, 30'000).error == 0);
  CHECK(talk.ask(command::read, 100, 30'000).data == byte_vector(30'000));
}

TEST_CASE("rule 30: fast_zero_is_enotsup_before_anything_changes_where_the_file_system_refuses") {
  dialogue talk(file_of(64 * 1024), each_mode());
  talk.server.disk.refuse_all(io_op::punch_hole, EOPNOTSUPP);
  talk.server.disk.refuse_all(io_op::zero_range, EOPNOTSUPP);
  CHECK(talk.ask(command::write_zeroes, 100, 30'000, flag::fast_zero).error == enotsup);
  CHECK(talk.is_unchanged());
  CHECK(talk.server.disk.count(io_op::write) == 0);
  // And without the flag never.
  CHECK(talk.ask(command::write_zeroes, 100, 30'000).error == 0);
  CHECK(talk.ask(command::read, 100, 30'000).data == byte_vector(30'000));
}

TEST_CASE("rule 30: fast_zero_writes_nothing_but_edges_where_it_is_fast") {
  dialogue talk(file_of(64 * 1024), each_mode());
  CHECK(talk.ask(command::write_zeroes, 0, 64 * 1024, flag::fast_zero).error == 0);
  CHECK(talk.server.disk.count(io_op::write) == 0);
  CHECK(talk.server.disk.count(io_op::punch_hole) == 1);
  CHECK(talk.ask(command::read, 0, 64 * 1024).data == byte_vector(64 * 1024));
}

// --- ERROR_OFFSET

TEST_CASE("rule 22: a_read_whose_second_half_fails_says_where") {
  dialogue talk(file_of(64 * 1024), chunked_mode());
  talk.server.disk.cut_next(io_op::read, 3 * block);
  talk.server.disk.fail_nth(io_op::read, 1, EIO);
  const answer failed = talk.ask(command::read, 1000, 8192);
  CHECK(failed.error == eio);
  CHECK(failed.failed_at == block + 3 * block);  // the blocks around the request begin at 512
  CHECK(talk.ask(command::read, 1000, 8192).error == 0);
}

TEST_CASE("rule 22: a_request_that_fails_as_a_whole_says_nothing_of_where") {
  dialogue talk(file_of(64 * 1024), chunked_mode());
  talk.server.disk.fail_nth(io_op::read, 0, EIO);
  const answer read = talk.ask(command::read, 0, 8192);
  CHECK(read.error == eio);
  CHECK_FALSE(read.failed_at);
  talk.server.disk.fail_nth(io_op::write, 0, EIO);
  CHECK_FALSE(talk.write(0, 8192).failed_at);
  talk.server.disk.fail_nth(io_op::punch_hole, 0, EIO);
  CHECK_FALSE(talk.ask(command::trim, 0, 8192).failed_at);
  // A refusal is about all of it, whatever the slot served before.
  CHECK_FALSE(talk.ask(command::read, 60'000, 8192).failed_at);
}

TEST_CASE("rule 22: a_write_that_stops_short_and_then_fails_says_where") {
  dialogue talk(file_of(64 * 1024), chunked_mode());
  talk.server.disk.cut_next(io_op::write, 2 * block);
  talk.server.disk.fail_nth(io_op::write, 1, ENOSPC);
  const answer aligned = talk.write(4096, 4096);
  CHECK(aligned.error == enospc);
  CHECK(aligned.failed_at == 4096 + 2 * block);

  talk.server.disk.cut_next(io_op::write, 2 * block);
  talk.server.disk.fail_nth(io_op::write, 1, ENOSPC);
  CHECK(talk.write(4100, 4096).failed_at == 4096 + 2 * block);

  // The old bytes at the edges cannot be read: nothing was written.
  talk.server.disk.fail_nth(io_op::read, 1, EIO);
  const answer unread = talk.write(4100, 4096);
  CHECK(unread.error == eio);
  CHECK_FALSE(unread.failed_at);
}

TEST_CASE("rule 22: a_request_whose_buffered_end_fails_says_where_that_begins") {
  dialogue talk(file_of(8192 + 100), chunked_mode());
  talk.server.disk.fail_nth(io_op::buffered_read, 0, EIO);
  CHECK(talk.ask(command::read, 4096, 4196).failed_at == 8192);
  talk.server.disk.fail_nth(io_op::buffered_write, 0, ENOSPC);
  CHECK(talk.write(4096, 4196).failed_at == 8192);
}

TEST_CASE("rule 22: zeroes_that_fail_say_where_if_all_before_it_are_zeroes") {
  dialogue talk(file_of(64 * 1024), chunked_mode());
  // The last edge, after the blocks that were punched.
  talk.server.disk.fail_nth(io_op::write, 0, EIO);
  CHECK(talk.ask(command::write_zeroes, 0, 4096 + 700).failed_at == 4096);
  // The first edge.
  talk.server.disk.fail_nth(io_op::write, 0, EIO);
  CHECK_FALSE(talk.ask(command::write_zeroes, 100, 8192).failed_at);
}

TEST_CASE("rule 22: a_sparse_read_that_fails_says_where") {
  storage::geometry shape = file_of(256 * 1024);
  shape.may_have_holes = true;
  dialogue talk(shape, chunked_mode());
  talk.server.disk.make(storage::extent_kind::hole, 64 * 1024, 64 * 1024);
  talk.server.disk.fail_nth(io_op::read, 1, EIO);
  const answer failed = talk.ask(command::read, 0, 256 * 1024);
  CHECK(failed.error == eio);
  CHECK(failed.failed_at == 128 * 1024);
}

TEST_CASE("rule 20: a_simple_reply_has_no_room_for_where_it_failed") {
  dialogue talk(file_of(64 * 1024), reply_mode::simple);
  talk.server.disk.cut_next(io_op::read, block);
  talk.server.disk.fail_nth(io_op::read, 1, EIO);
  CHECK(talk.ask(command::read, 0, 8192).error == eio);
}

// --- Ends

TEST_CASE("rule 35: a_stop_waits_for_what_the_disk_has_and_refuses_what_comes") {
  dialogue talk(file_of(64 * 1024), each_mode());
  CHECK(talk.ask(command::read, 0, 512).error == 0);
  talk.client.ask({.what = command::write, .offset = 0}, byte_vector(4096, dialogue::fresh));
  while (talk.client.say(1000)) {
  }
  while (talk.server.loops[0].run_one()) {
  }
  REQUIRE(talk.server.disk.in_flight() == 1);
  talk.client.connection().stop();
  talk.client.ask({.what = command::read, .offset = 0, .length = 512});
  const auto answers = talk.client.all_answers();
  REQUIRE(answers.size() == 2);
  CHECK(answers[0].asked.what == command::read);
  CHECK(answers[0].error == 108);
  CHECK(answers[1].error == 0);
  CHECK(talk.client.is_at_end());
  CHECK(talk.server.connections() == 0);
  CHECK(talk.server.disk.image()[4095] == dialogue::fresh);
}

TEST_CASE("rule 36: a_new_clients_write_waits_for_the_write_of_one_that_is_gone") {
  dialogue talk(file_of(64 * 1024), each_mode());
  CHECK(talk.ask(command::read, 0, 512).error == 0);
  const auto run = [&] {
    while (talk.server.loops[0].run_one()) {
    }
  };
  talk.client.ask({.what = command::write, .offset = 0}, byte_vector(4096, std::byte{1}));
  while (talk.client.say(100'000)) run();
  REQUIRE(talk.server.disk.in_flight() == 1);
  talk.client.hang_up();
  run();

  simulated_client next(talk.server, {.replies = talk.client.mode()});
  next.ask({.what = command::write, .offset = 1024}, byte_vector(512, std::byte{2}));
  next.ask({.what = command::write, .offset = 8192}, byte_vector(512, std::byte{3}));
  for (bool moved = true; moved;) {
    moved = next.say(100'000);
    while (talk.server.loops[0].run_one()) moved = true;
    moved |= next.hear(100'000);
  }
  // The one that is in the dead client's way waits, the other does not.
  CHECK(talk.server.disk.in_flight() == 2);
  CHECK(next.all_answers().size() == 2);
  CHECK(talk.server.disk.image()[1023] == std::byte{1});
  CHECK(talk.server.disk.image()[1024] == std::byte{2});
  CHECK(talk.server.connections() == 1);
  next.hang_up();
}
