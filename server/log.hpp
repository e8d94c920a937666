// The log: to standard error, one line an event, in words. Set up once by main.
#pragma once

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <exception>
#include <string>
#include <utility>

#include "server/rare_line.hpp"

namespace aionbd::server {

// `level`: debug, info, warn, error or off.
void set_up_log(const std::string& level);

// A line that somebody outside could cause as often as they like, if `limit` lets it pass; behind it, how
// many did not. For one that there is no memory to say, the next may be said.
template <typename... Parts>
void say_rarely(rare_line& limit, spdlog::level::level_enum level, fmt::format_string<Parts...> text,
                Parts&&... parts) noexcept {
  const auto others = limit.pass(std::chrono::steady_clock::now());
  if (!others) return;
  try {
    std::string line = fmt::format(text, std::forward<Parts>(parts)...);
    if (*others != 0) line += fmt::format(" ({} more like it since the last line)", *others);
    spdlog::log(level, "{}", line);
  } catch (const std::exception&) {
    limit.was_not_said(*others);
  }
}

}  // namespace aionbd::server
