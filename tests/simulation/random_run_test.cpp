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

// How many of so many runs show it, in these words if there are any.
int noticed(defect broken, std::uint64_t seeds, const std::string& words = {}) {
  int count = 0;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    const std::string complaint = outcome_of(seed, broken).complaint;
    count += words.empty() ? !complaint.empty() : complaint == words;
  }
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
  CHECK(noticed(defect::idle_syncs, 100) >= 40);
}

TEST_CASE("durable_writes_that_are_like_any_other_are_noticed") {
  const log_lines quiet;
  CHECK(noticed(defect::idle_fua, 100) >= 40);
}

TEST_CASE("clients_that_do_not_hear_of_the_syncs_that_failed_for_others_are_noticed") {
  const log_lines quiet;
  CHECK(noticed(defect::two_sync_groups, 100, "a connection was not told of a failed sync") >= 10);
}

TEST_CASE("clients_that_come_back_and_do_not_hear_of_the_syncs_that_failed_meanwhile_are_noticed") {
  const log_lines quiet;
  CHECK(noticed(defect::forgets_the_lost, 800, "a client that came back was not told of a failed sync") >=
        10);
}
