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

// A warning about a client, if `limit` lets it pass: for what clients can cause as often as they like.
// Without memory it stays unsaid.
template <typename... Parts>
void warn_rarely(rare_line& limit, const std::string& who, fmt::format_string<Parts...> text,
                 Parts&&... parts) noexcept {
  try {
    if (const auto more = limit.may_be_said(std::chrono::steady_clock::now())) {
      spdlog::warn("{}: {}{}", who, fmt::format(text, std::forward<Parts>(parts)...), *more);
    }
  } catch (const std::exception&) {
  }
}

}  // namespace aionbd::server
