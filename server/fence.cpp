#include "server/fence.hpp"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace aionbd::server {

fence::member::member(fence& of, int fd, storage::io_queue& home) : fence_(of), fd_(fd), home_(home) {
  way_is_free_.owner = was_barred_.owner = this;
  way_is_free_.hook = [](storage::io_request& told) {
    static_cast<member*>(told.owner)->listener_->way_is_free();
  };
  was_barred_.hook = [](storage::io_request& told) {
    member& self = *static_cast<member*>(told.owner);
    {
      const std::lock_guard guard(self.fence_.mutex_);
      self.is_word_of_bar_under_way_ = false;
    }
    self.listener_->was_barred();
  };
  const std::lock_guard guard(fence_.mutex_);
  fence_.members_.push_back(this);
}

bool fence::member::enter(fence_listener& listener) {
  const std::lock_guard guard(fence_.mutex_);
  listener_ = &listener;
  std::vector<member*> earlier(fence_.members_.begin(), std::ranges::find(fence_.members_, this));
  // Nothing of theirs begins any more, and what has begun has its range to itself.
  std::erase_if(earlier, [](const member* each) { return each->is_barred_.load(); });
  keep_who_has_hung_up(earlier);
  ahead_ = std::move(earlier);
  return ahead_.empty();
}

void fence::member::keep_who_has_hung_up(std::vector<member*>& of) {
  std::vector<pollfd> asked;
  asked.reserve(of.size());
  for (const member* const each : of) asked.push_back({.fd = each->fd_, .events = POLLRDHUP, .revents = 0});
  while (::poll(asked.data(), asked.size(), 0) < 0) {
    if (errno != EINTR)
      throw std::system_error(errno, std::system_category(), "looking for clients that left");
  }
  std::size_t at = 0;
  std::erase_if(of, [&](const member*) { return asked[at++].revents == 0; });
}

void fence::member::bar_those_ahead() noexcept {
  const std::lock_guard guard(fence_.mutex_);
  for (member* const each : ahead_) each->bar();
}

void fence::member::bar() noexcept {
  if (is_barred_.exchange(true) || listener_ == nullptr) return;
  is_word_of_bar_under_way_ = true;
  home_.post(was_barred_);
}

bool fence::member::is_word_of_bar_under_way() const noexcept {
  const std::lock_guard guard(fence_.mutex_);
  return is_word_of_bar_under_way_;
}

bool fence::member::stop_waiting() noexcept {
  const std::lock_guard guard(fence_.mutex_);
  if (ahead_.empty()) return false;
  ahead_.clear();
  return true;
}

void fence::member::leave() noexcept {
  const std::lock_guard guard(fence_.mutex_);
  if (std::erase(fence_.members_, this) == 0) return;
  for (member* const each : fence_.members_) {
    if (std::erase(each->ahead_, this) != 0 && each->ahead_.empty()) each->home_.post(each->way_is_free_);
  }
}

}  // namespace aionbd::server
