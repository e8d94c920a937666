#include "server/failure_log.hpp"

#include <new>

#include "server/log.hpp"

namespace aionbd::server {

void failure_log::add(const protocol::request& asked, const std::error_code& why) noexcept {
  // A refused fast zero is an answer, not a failure.
  const bool must_be_fast =
      asked.what == protocol::command::write_zeroes && (asked.flags & protocol::command_flag::fast_zero) != 0;
  if (must_be_fast && why == std::errc::operation_not_supported) return;
  const auto others = limit_.pass(std::chrono::steady_clock::now());
  if (!others) return;
  try {
    spdlog::error("{}: {} of {} bytes at {} failed: {}{}", peer_, protocol::to_string(asked.what),
                  asked.length, asked.offset, why.message(), rare_line::more_like_it(*others));
  } catch (const std::bad_alloc&) {
    limit_.was_not_said(*others);
  }
}

}  // namespace aionbd::server
