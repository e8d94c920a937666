#include "storage/range_lock.hpp"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

struct test_claim : range_lock::claim {
  test_claim(std::uint64_t first, std::uint64_t past) {
    begin = first;
    end = past;
    owner = this;
    granted = [](range_lock::claim& mine) { ++static_cast<test_claim*>(mine.owner)->grants; };
  }
  int grants = 0;
};

bool overlap(const range_lock::claim& one, const range_lock::claim& other) {
  return one.begin < other.end && other.begin < one.end;
}

}  // namespace

TEST_CASE("a_free_range_is_held_at_once_and_without_a_call") {
  range_lock lock;
  test_claim claim(0, 512);
  CHECK(lock.acquire(claim));
  lock.release(claim);
  CHECK(claim.grants == 0);
  CHECK(lock.acquire(claim));
  lock.release(claim);
}

TEST_CASE("ranges_that_only_touch_do_not_wait_for_each_other") {
  range_lock lock;
  test_claim middle(512, 1024);
  test_claim before(0, 512);
  test_claim after(1024, 1025);
  CHECK(lock.acquire(middle));
  CHECK(lock.acquire(before));
  CHECK(lock.acquire(after));
  lock.release(middle);
  lock.release(before);
  lock.release(after);
}

TEST_CASE("any_overlap_waits_until_the_range_is_released") {
  const std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges{
      {100, 200}, {0, 101}, {199, 300}, {0, 300}, {120, 180}, {100, 101}, {199, 200}};
  for (const auto& [begin, end] : ranges) {
    range_lock lock;
    test_claim held(100, 200);
    test_claim later(begin, end);
    CAPTURE(begin, end);
    CHECK(lock.acquire(held));
    CHECK_FALSE(lock.acquire(later));
    CHECK(later.grants == 0);
    lock.release(held);
    CHECK(later.grants == 1);
    lock.release(later);
    CHECK(lock.acquire(held));
    lock.release(held);
  }
}

TEST_CASE("a_range_over_several_held_ones_waits_for_the_last_of_them") {
  range_lock lock;
  test_claim first(0, 100);
  test_claim second(200, 300);
  test_claim third(400, 500);
  test_claim wide(50, 450);
  CHECK(lock.acquire(first));
  CHECK(lock.acquire(second));
  CHECK(lock.acquire(third));
  CHECK_FALSE(lock.acquire(wide));
  lock.release(second);
  lock.release(first);
  CHECK(wide.grants == 0);
  lock.release(third);
  CHECK(wide.grants == 1);
  lock.release(wide);
}

TEST_CASE("those_that_wait_get_their_turn_in_order_of_arrival") {
  range_lock lock;
  std::deque<test_claim> claims;
  for (int i = 0; i < 5; ++i) claims.emplace_back(0, 512);
  CHECK(lock.acquire(claims[0]));
  for (std::size_t i = 1; i < claims.size(); ++i) CHECK_FALSE(lock.acquire(claims[i]));
  for (std::size_t i = 0; i < claims.size(); ++i) {
    lock.release(claims[i]);
    for (std::size_t j = 1; j < claims.size(); ++j) CHECK(claims[j].grants == (j <= i + 1 ? 1 : 0));
  }
}

TEST_CASE("one_release_admits_all_that_it_was_in_the_way_of") {
  range_lock lock;
  test_claim wide(0, 1000);
  test_claim first(0, 100);
  test_claim second(500, 600);
  test_claim behind_first(50, 150);
  CHECK(lock.acquire(wide));
  CHECK_FALSE(lock.acquire(first));
  CHECK_FALSE(lock.acquire(second));
  CHECK_FALSE(lock.acquire(behind_first));
  lock.release(wide);
  CHECK(first.grants == 1);
  CHECK(second.grants == 1);
  CHECK(behind_first.grants == 0);
  lock.release(first);
  CHECK(behind_first.grants == 1);
  lock.release(behind_first);
  lock.release(second);
}

TEST_CASE("a_stream_of_small_ranges_does_not_starve_a_large_one") {
  range_lock lock;
  test_claim small(0, 10);
  test_claim large(0, 100);
  CHECK(lock.acquire(small));
  CHECK_FALSE(lock.acquire(large));
  // Free now, but wanted by one that came earlier.
  test_claim late(50, 60);
  CHECK_FALSE(lock.acquire(late));
  // Not wanted by anybody.
  test_claim elsewhere(200, 210);
  CHECK(lock.acquire(elsewhere));
  lock.release(small);
  CHECK(large.grants == 1);
  CHECK(late.grants == 0);
  lock.release(large);
  CHECK(late.grants == 1);
  lock.release(late);
  lock.release(elsewhere);
}

TEST_CASE("a_range_is_held_exactly_when_no_earlier_one_overlaps_it") {
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 generator(seed);
    range_lock lock;
    std::deque<test_claim> claims;
    std::vector<test_claim*> live;  // in order of arrival
    const auto must_be_held = [&](const test_claim& one) {
      for (const test_claim* earlier : live) {
        if (earlier == &one) return true;
        if (overlap(*earlier, one)) return false;
      }
      return true;
    };
    std::vector<test_claim*> held;
    const auto is_held = [&](test_claim* one) {
      return std::find(held.begin(), held.end(), one) != held.end();
    };
    for (int round = 0; round < 400; ++round) {
      if (live.size() < 12 && generator() % 2 == 0) {
        const std::uint64_t begin = generator() % 60;
        test_claim& fresh = claims.emplace_back(begin, begin + 1 + generator() % 20);
        live.push_back(&fresh);
        if (lock.acquire(fresh)) held.push_back(&fresh);
      } else if (!held.empty()) {
        const std::size_t index = generator() % held.size();
        test_claim* const leaving = held[index];
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(index));
        live.erase(std::find(live.begin(), live.end(), leaving));
        lock.release(*leaving);
        for (test_claim* waiter : live) {
          if (waiter->grants == 1 && !is_held(waiter)) held.push_back(waiter);
        }
      }
      CAPTURE(seed, round);
      for (test_claim* one : live) REQUIRE(is_held(one) == must_be_held(*one));
    }
    while (!held.empty()) {
      test_claim* const leaving = held.back();
      held.pop_back();
      live.erase(std::find(live.begin(), live.end(), leaving));
      lock.release(*leaving);
      for (test_claim* waiter : live) {
        if (waiter->grants == 1 && !is_held(waiter)) held.push_back(waiter);
      }
    }
    REQUIRE(live.empty());
    for (const auto& claim : claims) REQUIRE(claim.grants <= 1);
  }
}

namespace {

// One thread's claim, and how the thread learns that it is granted.
struct threads_claim : range_lock::claim {
  threads_claim() {
    owner = this;
    granted = [](range_lock::claim& mine) {
      auto& self = *static_cast<threads_claim*>(mine.owner);
      const std::lock_guard guard(self.mutex);
      self.is_granted = true;
      self.wake.notify_one();
    };
  }
  void wait() {
    std::unique_lock guard(mutex);
    wake.wait(guard, [this] { return is_granted; });
    is_granted = false;
  }
  std::mutex mutex;
  std::condition_variable wake;
  bool is_granted = false;
};

}  // namespace

TEST_CASE("threads_never_hold_overlapping_ranges_together", "[loops]") {
  constexpr int thread_count = 4;
  constexpr int rounds = 2000;
  range_lock lock;
  std::array<int, 32> blocks{};  // not atomic on purpose: the lock is what guards them
  std::array<long, thread_count> written{};
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < thread_count; ++number) {
    threads.emplace_back([&, number] {
      std::mt19937 generator(number);
      threads_claim claim;
      for (int round = 0; round < rounds; ++round) {
        claim.begin = generator() % blocks.size();
        claim.end = std::min<std::uint64_t>(blocks.size(), claim.begin + 1 + generator() % 8);
        if (!lock.acquire(claim)) claim.wait();
        for (std::uint64_t block = claim.begin; block < claim.end; ++block) ++blocks[block];
        written[number] += static_cast<long>(claim.end - claim.begin);
        lock.release(claim);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  long expected = 0;
  long found = 0;
  for (const long each : written) expected += each;
  for (const int each : blocks) found += each;
  CHECK(found == expected);
}
