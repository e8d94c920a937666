// What random runs have in common, on real servers and on simulated ones: clients ask for changes and looks
// that follow from a seed, and what each has asked and was told is kept in a history, which in the end must
// have an explanation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "protocol/requests.hpp"
#include "protocol/terms.hpp"
#include "tests/protocol/bytes.hpp"
#include "tests/simulation/history.hpp"
#include "tests/simulation/reply_reader.hpp"

namespace aionbd::tests {

class accounted_run {
 protected:
  enum class kind { change, trim, look, flush };
  struct pending {
    kind what = kind::flush;
    std::size_t number = 0;         // in the history
    bool is_durable = false;        // or a flush: it is told of failed syncs
    std::size_t failed_before = 0;  // for who keeps count of failures: how many, when it was asked for
  };
  // Of one client, over all its connections.
  struct account {
    std::size_t number = 0;                      // to the history, where syncs fail
    std::map<std::uint64_t, pending> in_flight;  // by cookie
    std::vector<std::size_t> left_behind;        // changes on connections it has hung up on
    std::size_t fenced = 0;                      // of these
  };
  static constexpr std::size_t in_flight_max = 6;

  // On so many bytes, of which all are zero at first.
  accounted_run(std::uint64_t seed, std::uint64_t length);

  std::uint64_t random(std::uint64_t limit) { return generator_() % limit; }
  bool one_in(std::uint64_t count) { return random(count) == 0; }
  protocol::reply_mode random_mode();

  // Any request, as often as not about whole blocks; `origin` is where on the client's disk the run's bytes
  // are.
  template <typename Talk>
  pending& ask_something(account& by, Talk& talk, std::uint64_t block, std::uint64_t origin = 0) {
    protocol::request asked = random_request(talk.mode(), block);
    const bool is_write = asked.what == protocol::command::write;
    const std::byte value = is_write ? next_value() : std::byte{0};
    const pending made = record(by, asked, value);
    if (made.what != kind::flush) asked.offset += origin;
    return by.in_flight[talk.ask(asked, byte_vector(is_write ? asked.length : 0, value))] = made;
  }
  template <typename Talk>
  pending& ask_for_flush(account& by, Talk& talk) {
    const protocol::request asked{.what = protocol::command::flush};
    return by.in_flight[talk.ask(asked)] = record(by, asked, std::byte{0});
  }
  template <typename Talk>
  void look_at_all(account& by, Talk& talk, std::uint64_t origin = 0) {
    protocol::request all{.what = protocol::command::read, .length = length_};
    const pending made = record(by, all, std::byte{0});
    all.offset = origin;
    by.in_flight[talk.ask(all)] = made;
  }

  // A zeroing that was to be fast or not at all; nothing was done.
  static bool was_not_fast(const answer& given);
  // An answer to one that is in flight; what it was.
  pending settle(account& by, const answer& given);
  // It has asked for something by which it is told of failed syncs.
  static bool may_be_told(const account& by);
  // The client hangs up without a word, whatever is under way.
  static void leave_all_behind(account& by);

  void complain(std::string what) {
    if (complaint_.empty()) complaint_ = std::move(what);
  }

  std::mt19937_64 generator_;
  const std::uint64_t length_;
  const bool has_hang_ups_;
  history history_;
  std::size_t requests_left_;
  std::string complaint_;

 private:
  protocol::request random_request(protocol::reply_mode mode, std::uint64_t block);
  pending record(const account& by, const protocol::request& asked, std::byte value);
  // Never a zero, and never what a discard leaves.
  std::byte next_value() { return static_cast<std::byte>(1 + changes_++ % 200); }

  std::size_t changes_ = 0;
};

}  // namespace aionbd::tests
