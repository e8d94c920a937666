#include "tests/simulation/random_run.hpp"

#include "tests/server/log_lines.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::tests;

namespace {

struct outcome {
  std::string complaint;
  std::uint64_t digest = 0;
  friend bool operator==(const outcome&, const outcome&) = default;
};

outcome outcome_of(std::uint64_t seed, defect broken = defect::none) {
  random_run run(seed, broken);
  std::string complaint = run.go();
  return {std::move(complaint), run.digest()};
}

// How many of so many runs show it.
int noticed(defect broken, std::uint64_t seeds) {
  int count = 0;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) count += !outcome_of(seed, broken).complaint.empty();
  return count;
}

}  // namespace

TEST_CASE("the_same_seed_is_the_same_run") {
  const log_lines quiet;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    CAPTURE(seed);
    CHECK(outcome_of(seed) == outcome_of(seed));
  }
  CHECK(outcome_of(1).digest != outcome_of(2).digest);
}

TEST_CASE("clients_that_do_not_wait_for_each_others_blocks_are_noticed") {
  const log_lines quiet;
  CHECK(noticed(defect::two_range_locks, 100) >= 5);
}

TEST_CASE("flushes_that_do_nothing_are_noticed") {
  const log_lines quiet;
  CHECK(noticed(defect::idle_syncs, 100) >= 50);
}
