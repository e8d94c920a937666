// An export, and the terms of a client that chose it: what requests are judged by and answers are made for.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "protocol/requests.hpp"
#include "protocol/terms.hpp"

namespace aionbd::tests {

inline constexpr std::uint64_t mebibyte = 1U << 20U;
inline constexpr std::uint64_t gibibyte = 1U << 30U;
inline constexpr std::uint64_t length_max = 0xffffffff;

namespace every {
inline constexpr std::uint16_t export_flag =
    protocol::transmission_flag::has_flags | protocol::transmission_flag::send_flush |
    protocol::transmission_flag::send_fua | protocol::transmission_flag::send_trim |
    protocol::transmission_flag::send_write_zeroes | protocol::transmission_flag::send_fast_zero |
    protocol::transmission_flag::send_cache;
inline constexpr std::initializer_list<protocol::reply_mode> mode = {
    protocol::reply_mode::simple, protocol::reply_mode::structured, protocol::reply_mode::extended};
inline constexpr std::initializer_list<protocol::reply_mode> chunked_mode = {protocol::reply_mode::structured,
                                                                             protocol::reply_mode::extended};
}  // namespace every

// With chunks, the client has also chosen base:allocation.
struct setting {
  explicit setting(protocol::reply_mode mode, std::uint64_t size = gibibyte,
                   std::uint16_t flags = every::export_flag) {
    offered.size = size;
    offered.flags = flags;
    agreed.chosen = &offered;
    agreed.replies = mode;
    agreed.allocation_selected = mode != protocol::reply_mode::simple;
  }
  setting(const setting&) = delete;

  // As a client of this mode writes it: with extended headers, a WRITE says that it has a payload.
  [[nodiscard]] protocol::request ask(protocol::command what, std::uint64_t offset, std::uint64_t length,
                                      unsigned flags = 0) const {
    if (what == protocol::command::write && agreed.replies == protocol::reply_mode::extended)
      flags |= protocol::command_flag::payload_len;
    return {what, static_cast<std::uint16_t>(flags), 1, offset, length};
  }

  [[nodiscard]] protocol::error check(protocol::command what, std::uint64_t offset, std::uint64_t length,
                                      unsigned flags = 0) const {
    return protocol::validate(ask(what, offset, length, flags), agreed);
  }

  // The commands that have a range, as far as they can be agreed.
  [[nodiscard]] std::initializer_list<protocol::command> ranged() const {
    using protocol::command;
    static constexpr std::initializer_list<command> always = {command::read, command::write, command::trim,
                                                              command::cache, command::write_zeroes};
    static constexpr std::initializer_list<command> with_status = {
        command::read,  command::write,        command::trim,
        command::cache, command::write_zeroes, command::block_status};
    return agreed.allocation_selected ? with_status : always;
  }

  protocol::export_info offered;
  protocol::terms agreed;
};

}  // namespace aionbd::tests
