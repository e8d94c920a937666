// Holds back lines of the log that a client could cause without end: at most one a second. One thread at a
// time.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>

namespace aionbd::server {

class rare_line {
 public:
  static constexpr std::chrono::seconds pause{1};

  // What to put behind the line, if it may be said: nothing, or how many like it were not.
  std::optional<std::string> may_be_said(std::chrono::steady_clock::time_point now) {
    if (now < quiet_until_) {
      ++unsaid_;
      return std::nullopt;
    }
    quiet_until_ = now + pause;
    const auto count = std::exchange(unsaid_, 0U);
    return count == 0 ? std::string() : " (" + std::to_string(count) + " more like it since the last line)";
  }

 private:
  std::chrono::steady_clock::time_point quiet_until_;
  unsigned unsaid_ = 0;
};

}  // namespace aionbd::server
