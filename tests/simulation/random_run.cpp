#include "tests/simulation/random_run.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <memory>
#include <utility>

#include "tests/protocol/bytes.hpp"

namespace aionbd::tests {

namespace {

using protocol::command;
using protocol::reply_mode;
namespace flag = protocol::command_flag;

constexpr std::size_t requests_max = 50;
constexpr std::size_t in_flight_max = 6;  // of one client
constexpr std::size_t steps_max = 200'000;
constexpr std::size_t much = std::size_t{1} << 20;

// Small, so that everything meets everything.
storage::geometry shape_from(std::uint64_t number) {
  constexpr std::array<std::array<std::uint32_t, 3>, 6> sizes{{
      // bytes, of them direct, alignment
      {512, 512, 16},
      {517, 512, 16},
      {543, 448, 16},
      {300, 0, 1},
      {64, 64, 64},
      {131, 128, 64},
  }};
  const auto& [size, direct, alignment] = sizes[number % sizes.size()];
  const std::uint64_t abilities = number / sizes.size() % 4;
  return {.size = size,
          .direct_end = direct,
          .alignment = alignment,
          .zeroing_granularity = 4 * alignment,
          .is_block_device = abilities == 3,
          .can_punch_hole = abilities == 1,
          .can_zero_range = abilities != 0,
          .can_discard = abilities == 3};
}

}  // namespace

random_run::random_run(std::uint64_t seed, defect broken)
    : broken_(broken),
      generator_(seed),
      shape_(shape_from(random(24))),
      has_failures_(broken == defect::none && one_in(4)),
      has_hang_ups_(one_in(4)),
      server_(shape_, 1 + random(2), [this](std::uint64_t limit) { return random(limit); }),
      history_(shape_.size),
      requests_left_(10 + random(requests_max - 10)) {
  server_.disk.short_counts(one_in(2));
  server_.disk.finish_at_once(one_in(4));
  if (broken == defect::two_range_locks) server_.exports.add("other", "", shape_, server_.disk.file());
  if (broken == defect::idle_syncs) server_.disk.ignore_syncs();
  for (std::size_t i = 1 + random(4); i > 0; --i) {
    client& fresh = clients_.emplace_back();
    fresh.home = random(server_.loops.size());
    if (broken == defect::two_range_locks && i % 2 == 0) fresh.asks_for = "other";
    connect(fresh);
  }
  for (std::uint64_t i = has_failures_ ? 1 + random(3) : 0; i > 0; --i) {
    constexpr std::array<int, 3> errors{EIO, ENOSPC, EOPNOTSUPP};
    server_.disk.fail_nth_of_any(random(3 * requests_left_), errors[random(errors.size())]);
  }
}

void random_run::connect(client& fresh) {
  constexpr std::array<reply_mode, 3> modes{reply_mode::simple, reply_mode::structured, reply_mode::extended};
  const client_settings settings{.replies = modes[random(modes.size())],
                                 .asks_for = fresh.asks_for,
                                 .loop_number = fresh.home,
                                 .send_buffer = one_in(4) ? 1 : 0};
  fresh.talk = std::make_unique<simulated_client>(server_, settings);
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
  client& some = clients_[random(clients_.size())];
  simulated_loop& loop = server_.loops[random(server_.loops.size())];
  switch (random(16)) {
    case 0:
    case 1:
      if (requests_left_ != 0 && some.in_flight.size() < in_flight_max) begin_request(some);
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

protocol::request random_run::random_request(const client& by) {
  constexpr std::array<command, 12> commands{
      command::write, command::write, command::write,        command::write, command::write, command::read,
      command::read,  command::read,  command::write_zeroes, command::trim,  command::flush, command::flush};
  protocol::request asked;
  asked.what = commands[random(commands.size())];
  if (asked.what == command::flush) return asked;
  const std::uint64_t offset = random(shape_.size), left = shape_.size - offset;
  asked.offset = offset;
  asked.length = 1 + random(std::min<std::uint64_t>(left, one_in(3) ? left : 2 * shape_.alignment));
  if (one_in(4)) {
    asked.offset = offset - offset % shape_.alignment;
    asked.length = std::min<std::uint64_t>(shape_.alignment * (1 + random(4)), shape_.size - asked.offset);
  }
  unsigned flags = one_in(4) ? flag::fua : 0;
  if (asked.what == command::write_zeroes && one_in(2)) flags |= flag::no_hole;
  if (asked.what == command::write_zeroes && one_in(6)) flags |= flag::fast_zero;
  const bool has_chunks = by.talk->mode() != reply_mode::simple;
  if (asked.what == command::read && has_chunks && one_in(3)) flags |= flag::df;
  asked.flags = static_cast<std::uint16_t>(flags);
  return asked;
}

// Never a zero, and never what a discard leaves.
std::byte random_run::next_value() {
  return static_cast<std::byte>(1 + changes_++ % 200);
}

void random_run::begin_request(client& by) {
  --requests_left_;
  const protocol::request asked = random_request(by);
  const bool is_write = asked.what == command::write;
  const std::byte value = is_write ? next_value() : std::byte{0};
  const pending account = record(asked, value);
  if (account.what == kind::change || account.what == kind::trim) {
    history_.put_behind(account.number, by.left_behind);
  }
  by.in_flight[by.talk->ask(asked, byte_vector(is_write ? asked.length : 0, value))] = account;
}

random_run::pending random_run::record(const protocol::request& asked, std::byte value) {
  const bool durable = (asked.flags & flag::fua) != 0;
  switch (asked.what) {
    case command::write:
    case command::write_zeroes:
      return {kind::change, history_.begin_change(asked.offset, asked.length, value, durable)};
    case command::trim:
      return {kind::trim, history_.begin_trim(asked.offset, asked.length, storage::fake_disk::discarded)};
    case command::read:
      return {kind::look, history_.begin_look(asked.offset, asked.length)};
    default:
      return {kind::flush, history_.begin_flush()};
  }
}

bool random_run::hear(client& by, std::size_t length) {
  const bool any = by.talk->hear(length);
  complain(by.talk->complaint());
  for (const answer& each : by.talk->take_answers()) settle_account(by, each);
  return any;
}

void random_run::settle_account(client& by, const answer& given) {
  const pending account = by.in_flight.at(given.asked.cookie);
  by.in_flight.erase(given.asked.cookie);
  for (; by.fenced < by.left_behind.size(); ++by.fenced) history_.fence_change(by.left_behind[by.fenced]);
  digest(given.data);
  const std::array<std::byte, 2> told{static_cast<std::byte>(given.asked.cookie),
                                      static_cast<std::byte>(given.error)};
  digest(told);
  const bool was_fast = (given.asked.flags & flag::fast_zero) != 0;
  if (given.error != 0 && !has_failures_ && !was_fast) complain("a failure without a cause");
  switch (account.what) {
    case kind::change:
    case kind::trim:
      history_.end_change(account.number, given.error == 0);
      // A promise is best tested as soon as it was given.
      if ((given.asked.flags & flag::fua) != 0 && one_in(3)) cut_power();
      return;
    case kind::look:
      if (given.error == 0) history_.end_look(account.number, given.data);
      return;
    default:
      history_.end_flush(account.number, given.error == 0);
      if (one_in(2)) cut_power();
  }
}

void random_run::cut_power() {
  if (cuts_left_ == 0) return;
  --cuts_left_;
  history_.cut_power(server_.disk.stable());
}

// Without a word, whatever is under way; and a new connection takes its place.
void random_run::hang_up(client& by) {
  by.talk->hang_up();
  for (const auto& [cookie, account] : by.in_flight) {
    if (account.what == kind::change || account.what == kind::trim) by.left_behind.push_back(account.number);
  }
  by.in_flight.clear();
  connect(by);
}

void random_run::finish() {
  for (client& each : clients_) {
    bool moved = true;
    while (moved) {
      moved = each.talk->say(much);
      moved |= server_.settle();
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

void random_run::complain(std::string what) {
  if (complaint_.empty()) complaint_ = std::move(what);
}

void random_run::digest(std::span<const std::byte> bytes) {
  for (const std::byte each : bytes) {
    digest_ = (digest_ ^ std::to_integer<std::uint64_t>(each)) * 0x100000001b3;
  }
}

}  // namespace aionbd::tests
