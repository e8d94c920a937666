#include "storage/dense_regions.hpp"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20, gib = mib << 10, tib = gib << 10;
constexpr std::uint64_t unit = dense_regions::region_length_min;

}  // namespace

TEST_CASE("nothing_is_dense_at_first") {
  const dense_regions dense(100 * mib);
  for (std::uint64_t at = 0; at < 100 * mib; at += unit) CHECK_FALSE(dense.covers(at, 1));
}

TEST_CASE("a_region_that_was_added_is_dense_to_its_borders") {
  dense_regions dense(100 * mib);
  dense.add(3 * unit, 2 * unit);
  CHECK(dense.covers(3 * unit, 2 * unit));
  CHECK(dense.covers(3 * unit, 1));
  CHECK(dense.covers(5 * unit - 1, 1));
  CHECK(dense.covers(4 * unit - 1, 2));
  CHECK_FALSE(dense.covers(3 * unit - 1, 1));
  CHECK_FALSE(dense.covers(3 * unit - 1, 2));
  CHECK_FALSE(dense.covers(5 * unit, 1));
  CHECK_FALSE(dense.covers(5 * unit - 1, 2));
  CHECK_FALSE(dense.covers(0, 100 * mib));
}

TEST_CASE("parts_of_a_region_do_not_make_it_dense") {
  dense_regions dense(100 * mib);
  dense.add(unit + 1, unit - 1);
  dense.add(5 * unit, unit - 1);
  dense.add(7 * unit + 100, 1);
  CHECK_FALSE(dense.covers(unit + 1, 1));
  CHECK_FALSE(dense.covers(5 * unit, 1));
  CHECK_FALSE(dense.covers(7 * unit + 100, 1));
  // Of one range, only the regions inside.
  dense.add(10 * unit - 1, 2 * unit + 2);
  CHECK_FALSE(dense.covers(10 * unit - 1, 1));
  CHECK(dense.covers(10 * unit, 2 * unit));
  CHECK_FALSE(dense.covers(12 * unit, 1));
}

TEST_CASE("a_piece_at_the_end_is_dense_when_all_there_is_of_it_is") {
  dense_regions dense(2 * unit + 700);
  dense.add(2 * unit, 699);
  CHECK_FALSE(dense.covers(2 * unit, 1));
  dense.add(2 * unit + 1, 699);
  CHECK_FALSE(dense.covers(2 * unit, 1));
  dense.add(2 * unit, 700);
  CHECK(dense.covers(2 * unit, 700));
  CHECK_FALSE(dense.covers(2 * unit - 1, 2));

  dense_regions small(1000);
  small.add(0, 1000);
  CHECK(small.covers(0, 1000));
}

TEST_CASE("forgetting_a_byte_forgets_its_region") {
  dense_regions dense(100 * mib);
  dense.add(0, 10 * unit);
  dense.forget(4 * unit - 1, 2);
  CHECK(dense.covers(0, 3 * unit));
  CHECK_FALSE(dense.covers(3 * unit, 1));
  CHECK_FALSE(dense.covers(5 * unit - 1, 1));
  CHECK(dense.covers(5 * unit, 5 * unit));
  dense.forget(9 * unit, 1);
  CHECK(dense.covers(5 * unit, 4 * unit));
  CHECK_FALSE(dense.covers(9 * unit, 1));
}

TEST_CASE("the_last_of_64_regions_is_not_the_first_of_the_next_64") {
  dense_regions dense(200 * mib);
  dense.add(63 * unit, unit);
  CHECK(dense.covers(63 * unit, unit));
  CHECK_FALSE(dense.covers(0, 1));
  CHECK_FALSE(dense.covers(64 * unit, 1));
  CHECK_FALSE(dense.covers(127 * unit, 1));
  dense.add(64 * unit, unit);
  CHECK(dense.covers(63 * unit, 2 * unit));
}

TEST_CASE("regions_grow_with_the_file_so_that_their_number_stays_bounded") {
  const std::uint64_t bounded = unit * dense_regions::regions_max;
  CHECK(dense_regions(1).region_length() == unit);
  CHECK(dense_regions(tib).region_length() == unit);
  CHECK(dense_regions(bounded - 1).region_length() == unit);
  CHECK(dense_regions(bounded).region_length() == 2 * unit);
  CHECK(dense_regions(bounded * 2).region_length() == 4 * unit);
  const std::uint64_t largest = std::uint64_t{1} << 62;
  dense_regions huge(largest);
  CHECK(is_power_of_two(huge.region_length()));
  CHECK(largest / huge.region_length() < dense_regions::regions_max);
  const std::uint64_t last = largest - huge.region_length();
  huge.add(last, huge.region_length());
  CHECK(huge.covers(last, huge.region_length()));
  CHECK_FALSE(huge.covers(last - 1, 1));
}

TEST_CASE("random_regions_agree_with_a_list_of_bools") {
  constexpr std::uint64_t regions = 150, size = regions * unit + 12345;
  std::mt19937_64 generator(7);
  dense_regions dense(size);
  std::vector<bool> model(regions + 1);
  for (int round = 0; round < 5000; ++round) {
    const std::uint64_t offset = generator() % size;
    const std::uint64_t length = 1 + generator() % std::min(size - offset, 5 * unit);
    CAPTURE(round, offset, length);
    bool covered = true;
    for (std::uint64_t i = offset / unit; i <= (offset + length - 1) / unit; ++i) {
      const std::uint64_t end = std::min((i + 1) * unit, size);
      covered = covered && model[i];
      if (round % 3 == 0 && i * unit >= offset && end <= offset + length) model[i] = true;
      if (round % 3 == 1 && generator() % 4 == 0) {
        dense.forget(i * unit, 1);
        model[i] = false;
      }
    }
    if (round % 3 == 0) dense.add(offset, length);
    if (round % 3 == 2) REQUIRE(dense.covers(offset, length) == covered);
  }
}

// Regions of one word belong to different threads: none undoes what another has done.
TEST_CASE("threads_never_lose_a_region_of_another", "[loops]") {
  constexpr unsigned threads = 4;
  constexpr std::uint64_t regions = 128;
  dense_regions dense(regions * unit);
  std::atomic<int> failures{0};
  std::vector<std::thread> running;
  for (unsigned number = 0; number < threads; ++number) {
    running.emplace_back([&, number] {
      for (int round = 0; round < 200; ++round) {
        for (std::uint64_t i = number; i < regions; i += threads) {
          dense.add(i * unit, unit);
          if (!dense.covers(i * unit, unit)) ++failures;
          if (round % 2 == 1) continue;
          dense.forget(i * unit, unit);
          if (dense.covers(i * unit, unit)) ++failures;
        }
      }
    });
  }
  for (auto& thread : running) thread.join();
  CHECK(failures == 0);
  CHECK(dense.covers(0, regions * unit));
}
