#include "tests/simulation/accounted_run.hpp"

#include <algorithm>
#include <array>

#include "tests/storage/fake_queue.hpp"

namespace aionbd::tests {

namespace {

using protocol::command;
using protocol::reply_mode;
namespace flag = protocol::command_flag;

constexpr std::uint32_t enotsup = 95;
constexpr std::size_t requests_min = 10, requests_max = 50;

}  // namespace

accounted_run::accounted_run(std::uint64_t seed, std::uint64_t length)
    : generator_(seed),
      length_(length),
      has_hang_ups_(one_in(3)),
      history_(length),
      requests_left_(requests_min + random(requests_max - requests_min)) {}

reply_mode accounted_run::random_mode() {
  constexpr std::array<reply_mode, 3> modes{reply_mode::simple, reply_mode::structured, reply_mode::extended};
  return modes[random(modes.size())];
}

protocol::request accounted_run::random_request(reply_mode mode, std::uint64_t block) {
  constexpr std::array<command, 12> commands{
      command::write, command::write, command::write,        command::write, command::write, command::read,
      command::read,  command::read,  command::write_zeroes, command::trim,  command::flush, command::flush};
  protocol::request asked;
  asked.what = commands[random(commands.size())];
  if (asked.what == command::flush) return asked;
  const std::uint64_t offset = random(length_), left = length_ - offset;
  asked.offset = offset;
  asked.length = 1 + random(std::min<std::uint64_t>(left, one_in(3) ? left : 2 * block));
  if (one_in(4)) {
    asked.offset = offset - offset % block;
    asked.length = std::min<std::uint64_t>(block * (1 + random(4)), length_ - asked.offset);
  }
  unsigned flags = one_in(4) ? flag::fua : 0;
  if (asked.what == command::write_zeroes && one_in(2)) flags |= flag::no_hole;
  if (asked.what == command::write_zeroes && one_in(6)) flags |= flag::fast_zero;
  if (asked.what == command::read && mode != reply_mode::simple && one_in(3)) flags |= flag::df;
  asked.flags = static_cast<std::uint16_t>(flags);
  return asked;
}

accounted_run::pending accounted_run::record(const account& by, const protocol::request& asked,
                                             std::byte value) {
  const bool durable = (asked.flags & flag::fua) != 0;
  pending made;
  switch (asked.what) {
    case command::write:
    case command::write_zeroes:
      made = {kind::change, history_.begin_change(asked.offset, asked.length, value, durable, by.number),
              durable};
      break;
    case command::trim:
      made = {kind::trim,
              history_.begin_trim(asked.offset, asked.length, storage::fake_disk::discarded, by.number),
              durable};
      break;
    case command::read:
      return {kind::look, history_.begin_look(asked.offset, asked.length)};
    default:
      return {kind::flush, history_.begin_flush(by.number), true};
  }
  history_.put_behind(made.number, by.left_behind);
  return made;
}

bool accounted_run::was_not_fast(const answer& given) {
  return given.error == enotsup && (given.asked.flags & flag::fast_zero) != 0;
}

accounted_run::pending accounted_run::settle(account& by, const answer& given) {
  const pending settled = by.in_flight.at(given.asked.cookie);
  by.in_flight.erase(given.asked.cookie);
  for (; by.fenced < by.left_behind.size(); ++by.fenced) history_.fence_change(by.left_behind[by.fenced]);
  const bool succeeded = given.error == 0;
  switch (settled.what) {
    case kind::change:
    case kind::trim:
      history_.end_change(settled.number, succeeded);
      break;
    case kind::look:
      if (succeeded) history_.end_look(settled.number, given.data);
      break;
    case kind::flush:
      history_.end_flush(settled.number, succeeded);
  }
  return settled;
}

bool accounted_run::may_be_told(const account& by) {
  return std::ranges::any_of(by.in_flight, [](const auto& each) { return each.second.is_durable; });
}

void accounted_run::leave_all_behind(account& by) {
  for (const auto& [cookie, left] : by.in_flight) {
    if (left.what == kind::change || left.what == kind::trim) by.left_behind.push_back(left.number);
  }
  by.in_flight.clear();
}

}  // namespace aionbd::tests
