#include "tests/simulation/recorded_run.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>

#include "storage/file_descriptor.hpp"

namespace aionbd::tests {

namespace {

using protocol::command;
using protocol::reply_mode;
namespace flag = protocol::command_flag;

constexpr std::size_t requests_max = 50;
constexpr std::size_t in_flight_max = 6;  // of one client
constexpr std::uint32_t eshutdown = 108;
// Of direct I/O, as like as not.
constexpr std::uint64_t block = 512;
// A server that is started again needs a moment.
constexpr std::chrono::seconds patience{30};

}  // namespace

recorded_run::recorded_run(std::uint64_t seed, std::vector<std::string> paths, std::string image,
                           const arena& where)
    : generator_(seed),
      paths_(std::move(paths)),
      image_(std::move(image)),
      arena_(where),
      has_hang_ups_(one_in(4)),
      history_(where.length),
      requests_left_(20 + random(requests_max - 20)) {
  for (std::size_t i = 2 + random(3); i > 0; --i) {
    client& fresh = clients_.emplace_back();
    fresh.path = paths_[i % paths_.size()];
    connect(fresh);
  }
}

void recorded_run::connect(client& fresh) {
  constexpr std::array<reply_mode, 3> modes{reply_mode::simple, reply_mode::structured, reply_mode::extended};
  const reply_mode mode = modes[random(modes.size())];
  fresh.talk.reset();
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    try {
      fresh.talk = std::make_unique<socket_client>(fresh.path, mode);
      return;
    } catch (const std::runtime_error&) {
      if (std::chrono::steady_clock::now() > deadline) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
}

std::string recorded_run::go() {
  begin_with_zeroes();
  while (complaint_.empty() && (requests_left_ != 0 || !is_idle())) {
    client& some = clients_[random(clients_.size())];
    if (requests_left_ != 0 && one_in(2) && some.in_flight.size() < in_flight_max) begin_request(some);
    if (has_hang_ups_ && one_in(40)) hang_up(some);
    move_all(requests_left_ == 0 && !is_idle());
  }
  if (!complaint_.empty()) return complaint_;
  // A last look by each client, and one at the file itself.
  for (client& each : clients_) {
    const protocol::request all{.what = command::read, .offset = arena_.offset, .length = arena_.length};
    const pending account = record(all, std::byte{0});
    each.in_flight[each.talk->ask(all)] = account;
  }
  while (complaint_.empty() && !is_idle()) move_all(true);
  look_at_the_file();
  complain(history_.contradiction());
  return complaint_;
}

// A new disk is zeroes to the history.
void recorded_run::begin_with_zeroes() {
  client& first = clients_.front();
  for (;; connect(first)) {
    const protocol::request zeroes{.what = command::write, .offset = arena_.offset, .length = arena_.length};
    first.talk->ask(zeroes, byte_vector(arena_.length));
    // The server may go away instead of answering.
    while (first.talk->move()) {
      const auto answers = first.talk->take_answers();
      if (!answers.empty() && answers.front().error == 0) return;
      if (!answers.empty()) break;
      std::this_thread::yield();
    }
  }
}

protocol::request recorded_run::random_request() {
  constexpr std::array<command, 12> commands{
      command::write, command::write, command::write,        command::write, command::write, command::read,
      command::read,  command::read,  command::write_zeroes, command::trim,  command::flush, command::read};
  protocol::request asked;
  asked.what = commands[random(commands.size())];
  if (asked.what == command::flush) return asked;
  const std::uint64_t begin = random(arena_.length), left = arena_.length - begin;
  asked.offset = begin;
  asked.length = 1 + random(std::min<std::uint64_t>(left, one_in(3) ? left : 2 * block));
  if (one_in(3)) {
    asked.offset = begin - begin % block;
    asked.length = std::min<std::uint64_t>(block * (1 + random(8)), arena_.length - asked.offset);
  }
  asked.offset += arena_.offset;
  unsigned flags = one_in(4) && asked.what != command::read ? flag::fua : 0;
  if (asked.what == command::write_zeroes && one_in(2)) flags |= flag::no_hole;
  asked.flags = static_cast<std::uint16_t>(flags);
  return asked;
}

void recorded_run::begin_request(client& by) {
  --requests_left_;
  const protocol::request asked = random_request();
  const bool is_write = asked.what == command::write;
  const auto value = static_cast<std::byte>(is_write ? 1 + changes_++ % 200 : 0);
  const pending account = record(asked, value);
  if (is_change(account)) history_.put_behind(account.number, by.left_behind);
  by.in_flight[by.talk->ask(asked, byte_vector(is_write ? asked.length : 0, value))] = account;
}

recorded_run::pending recorded_run::record(const protocol::request& asked, std::byte value) {
  const std::uint64_t offset = asked.offset - arena_.offset;
  const bool durable = (asked.flags & flag::fua) != 0;
  switch (asked.what) {
    case command::write:
    case command::write_zeroes:
      return {kind::change, history_.begin_change(offset, asked.length, value, durable)};
    case command::trim:
      return {kind::trim, history_.begin_trim(offset, asked.length, std::byte{0})};
    case command::read:
      return {kind::look, history_.begin_look(offset, asked.length)};
    default:
      return {kind::flush, history_.begin_flush()};
  }
}

void recorded_run::move_all(bool may_wait) {
  std::vector<pollfd> waiting;
  for (const client& each : clients_) {
    const auto wanted = static_cast<short>(each.talk->has_more_to_say() ? POLLIN | POLLOUT : POLLIN);
    waiting.push_back({.fd = each.talk->fd(), .events = wanted, .revents = 0});
  }
  const auto wait_ms = static_cast<int>(std::chrono::milliseconds(patience).count());
  if (::poll(waiting.data(), waiting.size(), may_wait ? wait_ms : 0) == 0 && may_wait) {
    return complain("a request without a reply");
  }
  for (client& each : clients_) {
    const bool is_there = each.talk->move();
    complain(each.talk->complaint());
    for (const answer& given : each.talk->take_answers()) settle_account(each, given);
    if (!is_there) come_back(each);
  }
}

// Without a word, whatever is under way; and a new connection takes its place.
void recorded_run::hang_up(client& by) {
  for (const auto& [cookie, account] : by.in_flight) {
    if (is_change(account)) by.left_behind.push_back(account.number);
  }
  by.in_flight.clear();
  connect(by);
}

// The server has gone. When there is one again, nothing of the old one's is under way any more.
void recorded_run::come_back(client& by) {
  connect(by);
  for (const auto& [cookie, account] : by.in_flight) {
    if (is_change(account)) history_.end_change(account.number, false);
  }
  for (const std::size_t each : by.left_behind) history_.end_change(each, false);
  by.in_flight.clear();
  by.left_behind.clear();
  by.fenced = 0;
}

void recorded_run::settle_account(client& by, const answer& given) {
  const pending account = by.in_flight.at(given.asked.cookie);
  by.in_flight.erase(given.asked.cookie);
  for (; by.fenced < by.left_behind.size(); ++by.fenced) history_.fence_change(by.left_behind[by.fenced]);
  const bool succeeded = given.error == 0;
  if (!succeeded && given.error != eshutdown)
    complain("error " + std::to_string(given.error) + " without a cause");
  switch (account.what) {
    case kind::change:
    case kind::trim:
      return history_.end_change(account.number, succeeded);
    case kind::look:
      if (succeeded) history_.end_look(account.number, given.data);
      return;
    case kind::flush:
      return history_.end_flush(account.number, succeeded);
  }
}

bool recorded_run::is_idle() const {
  return std::ranges::all_of(clients_, [](const client& each) { return each.in_flight.empty(); });
}

void recorded_run::look_at_the_file() {
  const storage::file_descriptor file(::open(image_.c_str(), O_RDONLY | O_CLOEXEC));
  byte_vector content(arena_.length);
  const std::size_t look = history_.begin_look(0, arena_.length);
  if (!file || ::pread(file.get(), content.data(), content.size(), static_cast<off_t>(arena_.offset)) !=
                   static_cast<ssize_t>(content.size())) {
    return complain("the file cannot be read");
  }
  history_.end_look(look, std::move(content));
}

void recorded_run::complain(const std::string& what) {
  if (complaint_.empty()) complaint_ = what;
}

}  // namespace aionbd::tests
