// One random run: clients on real connections change and read the same few blocks all at once, hang up and
// come back, while the disk completes in any order, stops short and fails. What they asked and were told is
// recorded, and must have an explanation (history.hpp); where only syncs fail, clients must be told of it as
// they were promised (failed_syncs.hpp). Everything comes from the seed: the same seed is the same run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>

#include "tests/simulation/accounted_run.hpp"
#include "tests/simulation/failed_syncs.hpp"
#include "tests/simulation/simulated_client.hpp"
#include "tests/simulation/simulated_server.hpp"

namespace aionbd::tests {

// How a server may be broken, to see that it is noticed.
enum class defect {
  none,
  two_range_locks,  // clients of one export do not wait for the other's
  idle_syncs,       // a flush that does nothing
  idle_fua,         // a durable write that is like any other
  two_sync_groups,  // clients of one export do not hear of the syncs that failed for the other
};

class random_run : accounted_run {
 public:
  explicit random_run(std::uint64_t seed, defect broken = defect::none);
  random_run(const random_run&) = delete;
  random_run& operator=(const random_run&) = delete;

  // Empty, or what was wrong.
  std::string go();

  // Of everything that was said, heard and found on the disk.
  std::uint64_t digest() const { return digest_; }

 private:
  struct client : account {
    std::size_t home = 0;  // loop
    std::string asks_for;
    std::unique_ptr<simulated_client> talk;
    failed_syncs::listener listener;
  };

  void connect(client& fresh);
  void step();
  bool hear(client& by, std::size_t length);
  void take(client& by, const answer& given);
  void judge_failure(client& by, const answer& given, const pending& asked);
  void note_failed_syncs();
  void cut_power();
  void hang_up(client& by);
  void finish();
  std::string verdict();
  void digest(std::span<const std::byte> bytes);

  const defect broken_;
  const storage::geometry shape_;
  const bool has_failures_;      // of any operation
  const bool has_failed_syncs_;  // and of nothing else
  simulated_server server_;
  failed_syncs syncs_;
  std::deque<client> clients_;
  std::size_t cuts_left_ = 10;  // what they leave is looked at byte by byte
  std::uint64_t digest_ = 0xcbf29ce484222325;
};

}  // namespace aionbd::tests
