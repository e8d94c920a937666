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
      has_failed_syncs_(broken == defect::two_sync_groups ||
                        (broken == defect::none && !has_failures_ && one_in(3))),
      server_(shape_, 1 + random(2), [this](std::uint64_t limit) { return random(limit); }) {
  server_.disk.short_counts(one_in(2));
  server_.disk.finish_at_once(one_in(4));
  const bool is_in_two = broken == defect::two_range_locks || broken == defect::two_sync_groups;
  if (is_in_two) server_.exports.add("other", "", shape_, server_.disk.file());
  if (broken == defect::idle_syncs) server_.disk.ignore_syncs();
  if (broken == defect::idle_fua) server_.disk.ignore_durability_of_writes();
  for (std::size_t i = 1 + random(4); i > 0; --i) {
    client& fresh = clients_.emplace_back();
    fresh.home = random(server_.loops.size());
    if (is_in_two && i % 2 == 0) fresh.asks_for = "other";
    connect(fresh);
  }
  for (std::uint64_t i = has_failures_ ? 1 + random(3) : 0; i > 0; --i) {
    constexpr std::array<int, 3> errors{EIO, ENOSPC, EOPNOTSUPP};
    server_.disk.fail_nth_of_any(random(3 * requests_left_), errors[random(errors.size())]);
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
  fresh.listener = {};
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
  note_failed_syncs();
  client& some = clients_[random(clients_.size())];
  simulated_loop& loop = server_.loops[random(server_.loops.size())];
  switch (random(16)) {
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
      for (std::uint64_t i = random(4); i > 0 && loop.run_one(); --i) {
      }
      return;
    case 9:
    case 10:
      loop.drain();
      return;
    case 11:
      if (one_in(40)) cut_power();
      if (has_hang_ups_ && one_in(20)) hang_up(some);
      return;
    default:
      for (std::uint64_t i = random(4); i > 0 && server_.disk.step(); --i) {
      }
  }
}

// Between two steps no client can tell when it was.
void random_run::note_failed_syncs() {
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
  const pending asked = settle(by, given);
  digest(given.data);
  const std::array<std::byte, 2> told{static_cast<std::byte>(given.asked.cookie),
                                      static_cast<std::byte>(given.error)};
  digest(told);
  if (!has_failures_) judge_failure(by, given, asked);
  // A promise is best tested as soon as it was given.
  if (asked.what == kind::flush ? one_in(2) : is_durable(given.asked) && one_in(3)) cut_power();
}

void random_run::judge_failure(client& by, const answer& given, const pending& asked) {
  syncs_.is_there(by.listener);
  if (was_not_fast(given)) return;
  if (is_durable(given.asked)) return complain(syncs_.judge(by.listener, asked.failed_before, given.error));
  if (given.error != 0) complain("a failure without a cause");
}

void random_run::cut_power() {
  if (cuts_left_ == 0) return;
  --cuts_left_;
  history_.cut_power(server_.disk.stable());
}

// Without a word, whatever is under way; and a new connection takes its place.
void random_run::hang_up(client& by) {
  by.talk->hang_up();
  leave_all_behind(by);
  connect(by);
}

void random_run::finish() {
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
