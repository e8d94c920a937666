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
#include <vector>

#include "tests/simulation/accounted_run.hpp"
#include "tests/simulation/failed_syncs.hpp"
#include "tests/simulation/simulated_client.hpp"
#include "tests/simulation/simulated_server.hpp"

namespace aionbd::tests {

// How a server may be broken, to see that it is noticed.
enum class defect {
  none,
  two_range_locks,   // clients of one export do not wait for the other's
  idle_syncs,        // a flush that does nothing
  idle_fua,          // a durable write that is like any other
  two_sync_groups,   // clients of one export do not hear of the syncs that failed for the other
  forgets_the_lost,  // who hangs up and comes back hears nothing of the time before
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
    bool is_away = false;
    bool is_noticed = false;  // away: the server knows
    bool is_excused = false;  // the server need not tell its next connection of what failed before
    // Of this connection, or the last one. By its first answer it is sure that the server has a session.
    bool is_answered = false;
    std::size_t answered_at = 0;
    std::size_t left_at = 0;  // a connection that had answered
    std::size_t told_at = 0;  // of a failed sync, or maybe, when it left and did not wait for the answer
  };

  void connect(client& fresh);
  void step();
  void run_some(simulated_loop& loop);
  bool hear(client& by, std::size_t length);
  void take(client& by, const answer& given);
  void judge_failure(client& by, const answer& given, const pending& asked);
  void judge_number_of_failures();
  void note_failed_syncs();
  void cut_power();
  void hang_up(client& by);
  void come_back(client& by);
  void note_first_answer(client& by);
  bool may_be_told_instead(const client& other, const client& by) const;
  void count_failure(client& by, const answer& given);
  void finish();
  std::string verdict();
  void digest(std::span<const std::byte> bytes);

  const defect broken_;
  const storage::geometry shape_;
  const bool has_failures_;      // of any operation
  const bool has_failed_syncs_;  // and of nothing else
  simulated_server server_;
  failed_syncs syncs_;
  std::uint64_t losses_ = 0;          // that the history knows
  std::uint64_t failed_ = 0;          // requests
  std::uint64_t failed_durable_ = 0;  // likewise; those that also tell of failed syncs
  std::deque<client> clients_;
  std::vector<std::weak_ptr<server::connection>>
      lost_;  // those that may be told of failed syncs all the same
  std::size_t steps_ = 0;
  std::size_t cuts_left_ = 10;  // what they leave is looked at byte by byte
  std::uint64_t digest_ = 0xcbf29ce484222325;
};

}  // namespace aionbd::tests
