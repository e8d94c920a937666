// Holds back lines of the log that a client could cause without end: at most one a second, or as many as are
// said to be worth it. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

namespace aionbd::server {

class rare_line {
 public:
  static constexpr std::chrono::seconds pause{1};

  explicit rare_line(unsigned in_a_second = 1) : in_a_second_(in_a_second) {}

  // Whether the line may be said; then how many like it were not since the last.
  std::optional<std::uint64_t> pass(std::chrono::steady_clock::time_point now) {
    if (now >= second_ends_) {
      second_ends_ = now + pause;
      left_ = in_a_second_;
    }
    if (left_ == 0) {
      ++unsaid_;
      return std::nullopt;
    }
    --left_;
    return std::exchange(unsaid_, 0U);
  }

  // It was not said after all: the next one may be, and counts this one and those before it.
  void was_not_said(std::uint64_t others) {
    ++left_;
    unsaid_ = others + 1;
  }

 private:
  unsigned in_a_second_;
  unsigned left_ = 0;
  std::chrono::steady_clock::time_point second_ends_;
  std::uint64_t unsaid_ = 0;
};

}  // namespace aionbd::server
