#include "server/failure_log.hpp"

#include "server/log.hpp"

namespace aionbd::server {

void failure_log::add(const protocol::request& asked, const std::error_code& why) noexcept {
  // A refused fast zero is an answer, not a failure.
  const bool must_be_fast =
      asked.what == protocol::command::write_zeroes && (asked.flags & protocol::command_flag::fast_zero) != 0;
  if (must_be_fast && why == std::errc::operation_not_supported) return;
  say_rarely(limit_, spdlog::level::err, "{}: {} of {} bytes at {} failed: {}", peer_,
             protocol::to_string(asked.what), asked.length, asked.offset, why.message());
}

}  // namespace aionbd::server
