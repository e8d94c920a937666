// One random run: clients on real connections change and read the same few blocks all at once, hang up and
// come back, while the disk completes in any order, stops short and fails. What they asked and were told is
// recorded, and must have an explanation (history.hpp). Everything comes from the seed: the same seed is the
// same run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "tests/simulation/history.hpp"
#include "tests/simulation/simulated_client.hpp"
#include "tests/simulation/simulated_server.hpp"

namespace aionbd::tests {

// How a server may be broken, to see that it is noticed.
enum class defect {
  none,
  two_range_locks,  // clients of one export do not wait for the other's
  idle_syncs,       // a flush that does nothing
};

class random_run {
 public:
  explicit random_run(std::uint64_t seed, defect broken = defect::none);
  random_run(const random_run&) = delete;
  random_run& operator=(const random_run&) = delete;

  // Empty, or what was wrong.
  std::string go();

  // Of everything that was said, heard and found on the disk.
  std::uint64_t digest() const { return digest_; }

 private:
  enum class kind { change, trim, look, flush, other };
  struct pending {
    kind what = kind::other;
    std::size_t number = 0;  // in the history
  };
  struct client {
    std::size_t home = 0;  // loop
    std::string asks_for;
    std::unique_ptr<simulated_client> talk;
    std::map<std::uint64_t, pending> in_flight;  // by cookie
    std::vector<std::size_t> left_behind;        // changes on connections it has hung up on
    std::size_t fenced = 0;                      // of these
  };

  std::uint64_t random(std::uint64_t limit) { return generator_() % limit; }
  bool one_in(std::uint64_t count) { return random(count) == 0; }

  void connect(client& fresh);
  void step();
  void begin_request(client& by);
  protocol::request random_request(const client& by);
  pending record(const protocol::request& asked, std::byte value);
  std::byte next_value();
  bool hear(client& by, std::size_t length);
  void settle_account(client& by, const answer& given);
  void cut_power();
  void hang_up(client& by);
  void finish();
  std::string verdict();
  void complain(std::string what);
  void digest(std::span<const std::byte> bytes);

  const defect broken_;
  std::mt19937_64 generator_;
  const storage::geometry shape_;
  const bool has_failures_;
  const bool has_hang_ups_;
  simulated_server server_;
  history history_;
  std::deque<client> clients_;
  std::size_t requests_left_;
  std::size_t changes_ = 0;
  std::size_t cuts_left_ = 10;  // what they leave is looked at byte by byte
  std::string complaint_;
  std::uint64_t digest_ = 0xcbf29ce484222325;
};

}  // namespace aionbd::tests
