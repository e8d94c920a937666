#include "storage/sync_group.hpp"

#include <atomic>
#include <cerrno>
#include <deque>
#include <thread>
#include <vector>

#include "tests/storage/fake_queue.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr geometry shape{.size = 4096, .direct_end = 4096, .alignment = 512};
const std::error_code no_error;
const std::error_code input_output_error(EIO, std::system_category());

struct one_flush {
  sync_group::waiter waiter;
  int calls = 0;
  std::error_code failure;

  void join(sync_group& group, fake_queue& queue) {
    waiter.queue = &queue;
    waiter.owner = this;
    waiter.done = [](void* owner, std::error_code outcome) {
      auto& self = *static_cast<one_flush*>(owner);
      ++self.calls;
      self.failure = outcome;
    };
    group.join(waiter);
  }
};

void fail_one_sync(fake_disk& disk, sync_group& group, fake_queue& queue) {
  disk.fail_nth(io_op::sync, 0, EIO);
  one_flush flush;
  flush.join(group, queue);
  run(disk, queue);
  REQUIRE(flush.failure == input_output_error);
}

std::error_code heard_by_a_newcomer(sync_group& group) {
  sync_witness newcomer = group.new_witness();
  return group.unheard_failure(newcomer);
}

}  // namespace

TEST_CASE("a_flush_is_one_sync") {
  fake_disk disk(shape, 1);
  fake_queue queue(disk);
  sync_group group(fake_disk::direct_fd);
  one_flush flush;
  flush.join(group, queue);
  CHECK(flush.calls == 0);
  run(disk, queue);
  CHECK(flush.calls == 1);
  CHECK_FALSE(flush.failure);
  CHECK(disk.count(io_op::sync) == 1);
  CHECK(disk.violations().empty());
}

TEST_CASE("flushes_that_come_while_a_sync_runs_share_the_next_one") {
  fake_disk disk(shape, 1);
  fake_queue queue(disk);
  sync_group group(fake_disk::direct_fd);
  std::deque<one_flush> flushes(10);
  for (auto& flush : flushes) flush.join(group, queue);
  run(disk, queue);
  for (const auto& flush : flushes) CHECK(flush.calls == 1);
  CHECK(disk.count(io_op::sync) == 2);
}

TEST_CASE("rule 27: a_flush_that_comes_while_a_sync_runs_is_not_answered_by_that_one") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    fake_disk disk(shape, seed);
    fake_queue queue(disk);
    sync_group group(fake_disk::direct_fd);
    one_flush early;
    one_flush late;
    early.join(group, queue);
    queue.flush();
    REQUIRE(disk.step());  // the sync has begun
    late.join(group, queue);
    while (early.calls == 0) {
      REQUIRE(disk.step());
      queue.drain();
    }
    CHECK(late.calls == 0);
    run(disk, queue);
    CHECK(late.calls == 1);
    CHECK(disk.count(io_op::sync) == 2);
  }
}

TEST_CASE("a_flush_may_be_joined_again_from_its_own_end") {
  fake_disk disk(shape, 1);
  fake_queue queue(disk);
  sync_group group(fake_disk::direct_fd);
  struct repeating {
    sync_group& group;
    sync_group::waiter waiter;
    int left = 5;
  } again{.group = group, .waiter = {}};
  again.waiter.queue = &queue;
  again.waiter.owner = &again;
  again.waiter.done = [](void* owner, std::error_code) {
    auto& self = *static_cast<repeating*>(owner);
    if (--self.left > 0) self.group.join(self.waiter);
  };
  group.join(again.waiter);
  run(disk, queue);
  CHECK(again.left == 0);
  CHECK(disk.count(io_op::sync) == 5);
}

TEST_CASE("a_flush_ends_on_the_queue_it_came_from") {
  fake_disk disk(shape, 1);
  fake_queue first_queue(disk);
  fake_queue second_queue(disk);
  sync_group group(fake_disk::direct_fd);
  one_flush first;
  one_flush second;
  one_flush third;
  first.join(group, first_queue);
  second.join(group, second_queue);
  third.join(group, first_queue);
  // The second queue stays asleep: what belongs to it must not happen on the first.
  run(disk, first_queue);
  CHECK(first.calls == 1);
  CHECK(third.calls == 1);
  CHECK(second.calls == 0);
  run(disk, second_queue);
  CHECK(second.calls == 1);
}

TEST_CASE("a_failed_sync_fails_all_flushes_it_was_for_and_none_after_it") {
  fake_disk disk(shape, 1);
  fake_queue queue(disk);
  sync_group group(fake_disk::direct_fd);
  disk.fail_nth(io_op::sync, 1, EIO);
  std::deque<one_flush> flushes(4);
  for (auto& flush : flushes) flush.join(group, queue);
  run(disk, queue);
  CHECK_FALSE(flushes[0].failure);
  for (std::size_t i = 1; i < flushes.size(); ++i) CHECK(flushes[i].failure == input_output_error);
  one_flush later;
  later.join(group, queue);
  run(disk, queue);
  CHECK_FALSE(later.failure);
}

TEST_CASE("rule 29: each_witness_hears_of_a_failed_sync_once") {
  fake_disk disk(shape, 1);
  fake_queue queue(disk);
  sync_group group(fake_disk::direct_fd);
  sync_witness first = group.new_witness();
  sync_witness second = group.new_witness();
  CHECK(group.unheard_failure(first) == no_error);
  fail_one_sync(disk, group, queue);
  CHECK(group.unheard_failure(first) == input_output_error);
  CHECK(group.unheard_failure(first) == no_error);
  CHECK(group.unheard_failure(second) == input_output_error);
  CHECK(group.unheard_failure(second) == no_error);
}

TEST_CASE("several_failed_syncs_are_heard_of_as_one_and_want_of_room_hides_none") {
  const std::error_code no_room(ENOSPC, std::system_category());
  sync_group group(fake_disk::direct_fd);
  sync_witness witness = group.new_witness();
  group.note_failure(no_room);
  CHECK(group.unheard_failure(witness) == no_room);
  CHECK(group.unheard_failure(witness) == no_error);
  group.note_failure(input_output_error);
  group.note_failure(no_room);
  CHECK(group.unheard_failure(witness) == input_output_error);
  group.note_failure(no_room);
  CHECK(group.unheard_failure(witness) == no_room);
}

TEST_CASE("who_may_not_have_heard_of_a_failure_may_come_back_and_is_told") {
  sync_group group(fake_disk::direct_fd);
  sync_witness lost = group.new_witness(), other = group.new_witness();
  group.note_failure(input_output_error);
  CHECK(group.unheard_failure(other) == input_output_error);

  // Its answer may not have reached it.
  CHECK(group.unheard_failure(lost) == input_output_error);
  group.dismiss(lost, true);
  sync_witness back = group.new_witness();
  CHECK(group.unheard_failure(back) == input_output_error);
  CHECK(group.unheard_failure(back) == no_error);

  // It had not been told, and leaves in order.
  sync_witness silent = group.new_witness();
  group.note_failure(input_output_error);
  CHECK(group.unheard_failure(back) == input_output_error);
  group.dismiss(silent, false);
  sync_witness next = group.new_witness();
  CHECK(group.unheard_failure(next) == input_output_error);
}

TEST_CASE("who_was_lost_before_anything_failed_is_told_when_it_comes_back") {
  sync_group group(fake_disk::direct_fd);
  sync_witness lost = group.new_witness(), other = group.new_witness();
  group.dismiss(lost, true);
  group.note_failure(input_output_error);
  CHECK(group.unheard_failure(other) == input_output_error);
  CHECK(heard_by_a_newcomer(group) == input_output_error);
  CHECK(heard_by_a_newcomer(group) == no_error);
}

TEST_CASE("what_was_told_to_a_connection_that_is_lost_is_told_again") {
  sync_group group(fake_disk::direct_fd);
  sync_witness lost = group.new_witness();
  group.dismiss(lost, true);
  group.note_failure(input_output_error);
  CHECK(heard_by_a_newcomer(group) == input_output_error);
  // What was under way for the lost one ends, and hears of it in its place.
  group.note_failure(input_output_error);
  CHECK(group.unheard_failure(lost) == input_output_error);
  CHECK(heard_by_a_newcomer(group) == input_output_error);
}

TEST_CASE("who_was_there_before_does_not_hear_in_the_place_of_one_that_was_lost") {
  sync_group group(fake_disk::direct_fd);
  sync_witness lost = group.new_witness(), other = group.new_witness();
  group.note_failure(input_output_error);
  group.dismiss(lost, true);
  CHECK(group.unheard_failure(other) == input_output_error);
  sync_witness back = group.new_witness();
  CHECK(group.unheard_failure(back) == input_output_error);
  sync_witness later = group.new_witness();
  CHECK(group.unheard_failure(later) == no_error);

  // A second one is lost before the first is back.
  sync_witness again = group.new_witness();
  group.note_failure(input_output_error);
  group.dismiss(later, true);
  sync_witness first_back = group.new_witness();
  group.dismiss(again, true);
  CHECK(group.unheard_failure(first_back) == input_output_error);
  sync_witness second_back = group.new_witness();
  CHECK(group.unheard_failure(second_back) == input_output_error);
  CHECK(heard_by_a_newcomer(group) == no_error);

  // When all that is settled, anybody's hearing counts for a failure after it.
  group.note_failure(input_output_error);
  CHECK(group.unheard_failure(other) == input_output_error);
  CHECK(heard_by_a_newcomer(group) == no_error);
}

TEST_CASE("who_comes_instead_of_one_that_was_lost_hears_of_a_loss_behind_want_of_room") {
  const std::error_code no_room(ENOSPC, std::system_category());
  for (const bool is_lost : {false, true}) {
    sync_group group(fake_disk::direct_fd);
    sync_witness gone = group.new_witness();
    group.note_failure(input_output_error);
    group.note_failure(no_room);
    group.dismiss(gone, is_lost);
    sync_witness back = group.new_witness();
    CHECK(group.unheard_failure(back) == input_output_error);
  }
}

TEST_CASE("who_has_heard_of_all_failures_leaves_none_to_others") {
  sync_group group(fake_disk::direct_fd);
  sync_witness told = group.new_witness();
  group.note_failure(input_output_error);
  CHECK(group.unheard_failure(told) == input_output_error);
  group.dismiss(told, false);
  sync_witness later = group.new_witness();
  CHECK(group.unheard_failure(later) == no_error);
  group.dismiss(later, true);  // nothing has failed in its time
  sync_witness last = group.new_witness();
  CHECK(group.unheard_failure(last) == no_error);
}

TEST_CASE("a_new_witness_hears_of_an_old_failure_only_if_nobody_has") {
  sync_group group(fake_disk::direct_fd);
  group.note_failure(input_output_error);

  // Whoever was there is gone without having been told.
  sync_witness successor = group.new_witness();
  sync_witness another = group.new_witness();
  CHECK(group.unheard_failure(successor) == input_output_error);
  CHECK(group.unheard_failure(another) == input_output_error);

  sync_witness late = group.new_witness();
  CHECK(group.unheard_failure(late) == no_error);
  group.note_failure(input_output_error);
  CHECK(group.unheard_failure(late) == input_output_error);
}

TEST_CASE("flushes_of_several_threads_end_on_their_own_thread_each", "[loops]") {
  constexpr int thread_count = 3;
  constexpr int rounds = 300;
  fake_disk disk(shape, 11);
  sync_group group(fake_disk::direct_fd);
  disk.fail_nth(io_op::sync, 7, EIO);
  disk.fail_nth(io_op::sync, 31, EIO);
  std::atomic<int> flushing{thread_count};
  std::atomic<int> failures_heard{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < thread_count; ++number) {
    threads.emplace_back([&] {
      fake_queue queue(disk);
      sync_witness witness = group.new_witness();
      struct mine {
        sync_group::waiter waiter;
        bool done = false;
        std::thread::id thread;
      } flush;
      flush.waiter.queue = &queue;
      flush.waiter.owner = &flush;
      flush.waiter.done = [](void* owner, std::error_code) {
        auto& self = *static_cast<mine*>(owner);
        self.done = true;
        self.thread = std::this_thread::get_id();
      };
      bool right_thread = true;
      for (int round = 0; round < rounds; ++round) {
        flush.done = false;
        group.join(flush.waiter);
        queue.flush();
        while (!flush.done) {
          disk.step();
          queue.drain();
        }
        right_thread = right_thread && flush.thread == std::this_thread::get_id();
        if (group.unheard_failure(witness)) ++failures_heard;
      }
      // A sync for others may still be in this queue's hands.
      --flushing;
      while (flushing > 0 || queue.outstanding() > 0) {
        disk.step();
        if (queue.drain() == 0) std::this_thread::yield();
      }
      if (!right_thread) failures_heard = -1000;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(failures_heard >= 2);
  CHECK(failures_heard <= 2 * thread_count);
  CHECK(disk.count(io_op::sync) <= rounds * thread_count);
}
