#include "server/admission.hpp"

#include <fmt/format.h>

namespace aionbd::server {

std::optional<std::string> admission::enter(const peer_address& who) {
  if (!is_allowed(limits_.allowed, who))
    return fmt::format("{} is in none of the --allow networks", text_of(who));
  const peer_address origin = origin_of(who);
  const std::lock_guard guard(mutex_);
  if (present_ >= limits_.connections_max) {
    return fmt::format("{} clients are connected, the limit of --max-connections", present_);
  }
  unsigned& count = by_origin_[origin];
  if (count >= limits_.per_address_max) {
    return fmt::format("{} clients from {} are connected, the limit of --max-per-address", count,
                       text_of_origin(origin));
  }
  ++count;
  ++present_;
  return std::nullopt;
}

unsigned admission::leave(const peer_address& who) {
  const std::lock_guard guard(mutex_);
  const auto at = by_origin_.find(origin_of(who));
  if (--at->second == 0) by_origin_.erase(at);
  return --present_;
}

unsigned admission::present() const {
  const std::lock_guard guard(mutex_);
  return present_;
}

}  // namespace aionbd::server
