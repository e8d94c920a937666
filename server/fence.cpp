#include "server/fence.hpp"

#include <poll.h>

#include <algorithm>
#include <utility>

namespace aionbd::server {

fence::member::member(fence& of, int fd, storage::io_queue& home) : fence_(of), fd_(fd), home_(home) {
  const std::lock_guard guard(fence_.mutex_);
  fence_.members_.push_back(this);
}

bool fence::member::enter(void* owner, void (*way_is_free)(storage::io_request&)) {
  message_.owner = owner;
  message_.hook = way_is_free;
  const std::lock_guard guard(fence_.mutex_);
  std::vector<member*> earlier(fence_.members_.begin(), std::ranges::find(fence_.members_, this));
  std::vector<pollfd> asked;
  asked.reserve(earlier.size());
  for (const member* const each : earlier)
    asked.push_back({.fd = each->fd_, .events = POLLRDHUP, .revents = 0});
  if (::poll(asked.data(), asked.size(), 0) <= 0) return true;
  std::size_t at = 0;
  std::erase_if(earlier, [&](const member*) { return asked[at++].revents == 0; });
  ahead_ = std::move(earlier);
  return ahead_.empty();
}

void fence::member::bar_those_ahead() noexcept {
  const std::lock_guard guard(fence_.mutex_);
  for (member* const each : ahead_) each->is_barred_ = true;
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
    if (std::erase(each->ahead_, this) != 0 && each->ahead_.empty()) each->home_.post(each->message_);
  }
}

}  // namespace aionbd::server
