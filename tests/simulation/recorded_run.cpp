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
#include "storage/sparse_read.hpp"

namespace aionbd::tests {

namespace {

using protocol::command;
using protocol::reply_mode;

constexpr std::uint32_t eshutdown = 108;
// Of direct I/O, as like as not.
constexpr std::uint64_t block = 512;
// A server that is started again needs a moment.
constexpr std::chrono::seconds patience{30};

}  // namespace

recorded_run::recorded_run(std::uint64_t seed, std::vector<std::string> paths, std::string image,
                           const arena& where)
    : accounted_run(seed, where.length), paths_(std::move(paths)), image_(std::move(image)), arena_(where) {
  for (std::size_t i = 2 + random(3); i > 0; --i) {
    client& fresh = clients_.emplace_back();
    fresh.path = paths_[i % paths_.size()];
    connect(fresh);
  }
}

void recorded_run::connect(client& fresh) {
  const reply_mode mode = random_mode();
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
    if (requests_left_ != 0 && one_in(2) && some.in_flight.size() < in_flight_max) {
      --requests_left_;
      ask_something(some, *some.talk, block, arena_.offset);
    }
    if (has_hang_ups_ && one_in(40)) hang_up(some);
    move_all(requests_left_ == 0 && !is_idle());
  }
  if (!complaint_.empty()) return complaint_;
  // A last look by each client, and one at the file itself.
  for (client& each : clients_) look_at_all(each, *each.talk, arena_.offset);
  while (complaint_.empty() && !is_idle()) move_all(true);
  look_at_the_file();
  complain(history_.contradiction());
  return complaint_;
}

// A new disk is zeroes to the history. Where a read is long enough to leave out holes, they are one.
void recorded_run::begin_with_zeroes() {
  client& first = clients_.front();
  for (;; connect(first)) {
    protocol::request zeroes{.what = command::write, .offset = arena_.offset, .length = arena_.length};
    const bool are_holes = arena_.length >= storage::sparse_read::length_min;
    if (are_holes) zeroes.what = command::write_zeroes;
    first.talk->ask(zeroes, byte_vector(are_holes ? 0 : arena_.length));
    // The server may go away instead of answering.
    while (first.talk->move()) {
      const auto answers = first.talk->take_answers();
      if (!answers.empty() && answers.front().error == 0) return;
      if (!answers.empty()) break;
      std::this_thread::yield();
    }
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
    for (const answer& given : each.talk->take_answers()) take(each, given);
    if (!is_there) come_back(each);
  }
}

void recorded_run::hang_up(client& by) {
  leave_all_behind(by);
  connect(by);
}

// The server has gone. When there is one again, nothing of the old one's is under way any more.
void recorded_run::come_back(client& by) {
  hang_up(by);
  for (const std::size_t each : by.left_behind) history_.end_change(each, false);
  by.left_behind.clear();
  by.fenced = 0;
}

void recorded_run::take(client& by, const answer& given) {
  (void)settle(by, given);  // what it was is no matter here
  if (given.error != 0 && given.error != eshutdown && !was_not_fast(given))
    complain("error " + std::to_string(given.error) + " without a cause");
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

}  // namespace aionbd::tests
