#include "tests/simulation/random_run.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <memory>
#include <vector>

#include "storage/sparse_read.hpp"

namespace aionbd::tests {

namespace {

using protocol::command;
namespace flag = protocol::command_flag;

constexpr std::size_t steps_max = 200'000;
constexpr std::size_t much = std::size_t{1} << 20;
constexpr std::uint32_t eio = 5, enospc = 28;

// Small, so that everything meets everything; but a few, which take their time, are large enough for reads
// that leave out holes.
storage::geometry shape_from(std::uint64_t number) {
  constexpr std::array<std::array<std::uint32_t, 3>, 7> sizes{{
      // bytes, of them direct, alignment
      {512, 512, 16},
      {517, 512, 16},
      {543, 448, 16},
      {300, 0, 1},
      {64, 64, 64},
      {131, 128, 64},
      {98'304, 98'304, 4096},
  }};
  const bool is_large = number % 16 == 15;
  const auto& [size, direct, alignment] = is_large ? sizes.back() : sizes[number % (sizes.size() - 1)];
  const std::uint64_t abilities = number / 16 % 4;
  return {.size = size,
          .direct_end = direct,
          .alignment = alignment,
          .zeroing_granularity = 4 * alignment,
          .is_block_device = abilities == 3,
          .may_have_holes = size > storage::sparse_read::length_min && abilities != 3,
          .can_punch_hole = abilities == 1,
          .can_zero_range = abilities != 0,
          .can_discard = abilities == 3};
}

bool is_durable(const protocol::request& asked) {
  return asked.what == command::flush || (asked.what != command::read && (asked.flags & flag::fua) != 0);
}

}  // namespace

random_run::random_run(std::uint64_t seed, defect broken)
    : accounted_run(seed, shape_from(seed).size),
      broken_(broken),
      shape_(shape_from(seed)),
      has_failures_(broken == defect::none && one_in(4)),
      has_failed_syncs_(broken == defect::two_sync_groups || broken == defect::forgets_the_lost ||
                        (broken == defect::none && !has_failures_ && one_in(3))),
      server_(shape_, 1 + random(2), [this](std::uint64_t limit) { return random(limit); }) {
  server_.disk.short_counts(one_in(2));
  server_.disk.finish_at_once(one_in(4));
  const bool is_in_two = broken == defect::two_range_locks || broken == defect::two_sync_groups;
  if (is_in_two || broken == defect::forgets_the_lost)
    server_.exports.add("other", "", shape_, server_.disk.file());
  if (broken == defect::idle_syncs) server_.disk.ignore_syncs();
  if (broken == defect::idle_fua) server_.disk.ignore_durability_of_writes();
  for (std::size_t i = 1 + random(4); i > 0; --i) {
    client& fresh = clients_.emplace_back();
    fresh.number = clients_.size();
    fresh.home = random(server_.loops.size());
    if (is_in_two && i % 2 == 0) fresh.asks_for = "other";
    connect(fresh);
  }
  for (std::uint64_t i = has_failures_ ? 1 + random(3) : 0; i > 0; --i) {
    // What a file system may not know is ways of zeroing.
    using enum storage::io_op;
    constexpr std::array<storage::io_op, 3> zeroings{punch_hole, zero_range, discard};
    if (one_in(3)) {
      server_.disk.fail_nth(zeroings[random(zeroings.size())], random(4), EOPNOTSUPP);
    } else {
      server_.disk.fail_nth_of_any(random(3 * requests_left_), one_in(2) ? ENOSPC : EIO);
    }
  }
  for (std::uint64_t i = has_failed_syncs_ ? 1 + random(3) : 0; i > 0; --i) {
    server_.disk.fail_nth(storage::io_op::sync, random(6), one_in(3) ? ENOSPC : EIO);
  }
}

void random_run::connect(client& fresh) {
  const client_settings settings{.replies = random_mode(),
                                 .asks_for = fresh.asks_for,
                                 .loop_number = fresh.home,
                                 .send_buffer = one_in(4) ? 1 : 0};
  fresh.talk = std::make_unique<simulated_client>(server_, settings);
  fresh.is_away = fresh.is_answered = false;
}

std::string random_run::go() {
  for (std::size_t i = 0; i < steps_max && complaint_.empty(); ++i) {
    const bool is_idle =
        std::ranges::all_of(clients_, [](const client& each) { return each.in_flight.empty(); });
    if (requests_left_ == 0 && is_idle) break;
    step();
  }
  finish();
  return verdict();
}

void random_run::step() {
  ++steps_;
  note_failed_syncs();
  client& some = clients_[random(clients_.size())];
  simulated_loop& loop = server_.loops[random(server_.loops.size())];
  const std::uint64_t what = random(16);
  if (what < 6 && some.is_away) {
    if (one_in(15)) come_back(some);
    return;
  }
  switch (what) {
    case 0:
    case 1:
      if (requests_left_ == 0 || some.in_flight.size() == in_flight_max) return;
      --requests_left_;
      if (shape_.may_have_holes && one_in(8)) return look_at_all(some, *some.talk);
      ask_something(some, *some.talk, shape_.alignment).failed_before = syncs_.count();
      return;
    case 2:
    case 3:
      some.talk->say(one_in(2) ? 1 + random(40) : much);
      return;
    case 4:
    case 5:
      hear(some, one_in(2) ? 1 + random(40) : much);
      return;
    case 6:
    case 7:
    case 8:
      return run_some(loop);
    case 9:
    case 10:
      loop.drain();
      return;
    case 11:
      if (one_in(40)) cut_power();
      if (has_hang_ups_ && !some.is_away && one_in(some.is_answered ? 6 : 40)) hang_up(some);
      return;
    default:
      for (std::uint64_t i = random(4); i > 0 && server_.disk.step(); --i) {
      }
  }
}

void random_run::run_some(simulated_loop& loop) {
  for (std::uint64_t i = random(4); i > 0; --i) {
    if (loop.run_one()) continue;
    // A session that has answered something is always reading, and so its loop has found the end by now.
    for (client& each : clients_) {
      if (each.is_away && each.is_answered && &server_.loops[each.home] == &loop) each.is_noticed = true;
    }
    return;
  }
}

// Between two steps no client can tell when it was.
void random_run::note_failed_syncs() {
  for (; losses_ < server_.disk.possible_losses(); ++losses_) history_.fail_sync();
  const std::vector<int> failed = server_.disk.failed_syncs();
  for (std::size_t i = syncs_.count(); i < failed.size(); ++i)
    syncs_.fail(failed[i] == ENOSPC ? enospc : eio);
}

bool random_run::hear(client& by, std::size_t length) {
  const bool any = by.talk->hear(length);
  complain(by.talk->complaint());
  for (const answer& each : by.talk->take_answers()) take(by, each);
  return any;
}

void random_run::take(client& by, const answer& given) {
  if (!by.is_answered) note_first_answer(by);
  const pending asked = settle(by, given);
  digest(given.data);
  const std::array<std::byte, 2> told{static_cast<std::byte>(given.asked.cookie),
                                      static_cast<std::byte>(given.error)};
  digest(told);
  if (given.error != 0 && !was_not_fast(given)) count_failure(by, given);
  if (!has_failures_) judge_failure(by, given, asked);
  // A promise is best tested as soon as it was given.
  if (asked.what == kind::flush ? one_in(2) : is_durable(given.asked) && one_in(3)) cut_power();
}

// What it hears on this connection begins before this.
void random_run::note_first_answer(client& by) {
  if (by.listener.most) {
    by.is_excused |=
        std::ranges::any_of(clients_, [&](const client& each) { return may_be_told_instead(each, by); });
  }
  by.is_answered = true;
  by.answered_at = steps_;
  if (by.is_excused) {
    by.is_excused = false;
    by.listener = {};
    history_.tell_of_failed_syncs(by.number);
  }
  syncs_.is_back(by.listener);
}

// Nobody can tell whose connections are whose, so whoever comes first hears of the failed syncs for one that
// was lost; but not who was there before it.
bool random_run::may_be_told_instead(const client& other, const client& by) const {
  if (&other == &by) return false;
  const bool was_there = !other.is_away && other.is_answered && other.answered_at < by.left_at;
  return !was_there && (may_be_told(other) || other.told_at >= by.left_at);
}

void random_run::count_failure(client& by, const answer& given) {
  if (!is_durable(given.asked)) {
    ++failed_;
    return;
  }
  ++failed_durable_;
  by.told_at = steps_;
  history_.tell_of_failed_syncs(by.number);
}

void random_run::judge_failure(client& by, const answer& given, const pending& asked) {
  if (was_not_fast(given)) return;
  if (is_durable(given.asked)) {
    using told_by = failed_syncs::told_by;
    const told_by what = asked.what == kind::flush ? told_by::flush : told_by::change;
    return complain(syncs_.judge(by.listener, asked.failed_before, given.error, what));
  }
  if (given.error != 0) complain("a failure without a cause");
}

void random_run::cut_power() {
  if (cuts_left_ == 0) return;
  --cuts_left_;
  history_.cut_power(server_.disk.stable());
}

// Without a word, whatever is under way. A new connection takes its place, at once or later.
void random_run::hang_up(client& by) {
  by.is_excused |= std::ranges::any_of(lost_, [](const auto& each) { return !each.expired(); });
  if (may_be_told(by)) {
    by.told_at = steps_;
    lost_.push_back(by.talk->served());
  }
  by.talk->hang_up();
  leave_all_behind(by);
  failed_syncs::is_away(by.listener);
  if (by.is_answered) by.left_at = steps_;
  by.is_away = true;
  by.is_noticed = false;
  if (one_in(4)) come_back(by);
}

// Nobody is owed anything who is back before the server knows that it had gone.
void random_run::come_back(client& by) {
  by.is_excused |= !by.talk->served().expired() && !by.is_noticed;
  if (broken_ == defect::forgets_the_lost) by.asks_for = "other";
  connect(by);
}

void random_run::finish() {
  if (one_in(2)) server_.settle();
  note_failed_syncs();
  for (client& each : clients_) {
    if (each.is_away) come_back(each);
    if (!one_in(4)) ask_for_flush(each, *each.talk).failed_before = syncs_.count();
  }
  for (client& each : clients_) {
    bool moved = true;
    while (moved) {
      moved = each.talk->say(much);
      moved |= server_.settle();
      note_failed_syncs();
      moved |= hear(each, much);
    }
    if (!each.in_flight.empty()) complain("a request without a reply");
    each.talk->hang_up();
  }
  server_.settle();
  history_.cut_power(server_.disk.stable());
  const auto image = server_.disk.image();
  digest(image);
  history_.end(image);
  judge_number_of_failures();
}

// Each operation that failed is one request's, and makes it fail, or another way is found. Beyond that a sync
// is many requests', and each client is told of it.
void random_run::judge_number_of_failures() {
  const std::uint64_t of_their_own = failed_ + (losses_ == 0 ? failed_durable_ : 0);
  if (of_their_own > server_.disk.failures_injected()) complain("more requests failed than operations");
}

std::string random_run::verdict() {
  // With two locks the disk itself sees the overlaps; here the history alone has to tell.
  if (broken_ == defect::none) complain(server_.leftovers());
  if (complaint_.empty()) complain(history_.contradiction());
  return complaint_;
}

void random_run::digest(std::span<const std::byte> bytes) {
  for (const std::byte each : bytes) {
    digest_ = (digest_ ^ std::to_integer<std::uint64_t>(each)) * 0x100000001b3;
  }
}

}  // namespace aionbd::tests
