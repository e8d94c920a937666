// What is offered and what was agreed: plain values that the handshake fills and the transmission phase
// reads. The server owns every export_info and keeps it unchanged while a handshake or a session refers to
// it.
#pragma once

#include <cstdint>
#include <string>

#include "protocol/constants.hpp"

namespace aionbd::protocol {

struct export_info {
  std::string name;         // Well-formed (text.hpp); the empty name is an export's name like any other.
  std::string description;  // Shown to people by LIST and INFO; cut at 4096 bytes.
  std::uint64_t size = 0;
  std::uint16_t flags = transmission_flag::has_flags;
  // "Size constraints": powers of two, except the last. The minimum is at most 65536, the preferred size at
  // least 512.
  std::uint32_t block_size_min = 1;
  std::uint32_t block_size_preferred = 4096;
  std::uint32_t block_size_max = request_payload_max;
};

// Which headers travel: simple replies only, structured replies to compact requests, or extended headers in
// both directions. Each is agreed in the handshake, and the later ones take the place of the earlier.
enum class reply_mode : std::uint8_t { simple, structured, extended };

// Whether a client may use TLS, may do without it, or has to use it ("TLS support": NOTLS, the degenerate
// SELECTIVETLS, FORCEDTLS).
enum class tls_policy : std::uint8_t { off, allowed, required };

struct terms {
  const export_info* chosen = nullptr;
  bool no_zeroes = false;
  bool block_sizes_requested = false;  // The client asked in GO, so it has promised to keep to them.
  reply_mode replies = reply_mode::simple;
  bool allocation_selected = false;  // SET_META_CONTEXT chose base:allocation for this export.
};

// The transmission flags that this client is told, and is held to ("Transmission flags"). SEND_DF and
// BLOCK_STATUS_PAYLOAD come with what was agreed and not with the export; SEND_RESIZE is not served; and
// SEND_FAST_ZERO means nothing without SEND_WRITE_ZEROES.
[[nodiscard]] constexpr std::uint16_t offered_flags(const export_info& offered,
                                                    const terms& agreed) noexcept {
  unsigned kept = offered.flags | transmission_flag::has_flags;
  kept &= ~(0U | transmission_flag::send_df | transmission_flag::block_status_payload |
            transmission_flag::send_resize);
  if ((kept & transmission_flag::send_write_zeroes) == 0) kept &= ~(0U | transmission_flag::send_fast_zero);
  if (agreed.replies != reply_mode::simple) kept |= transmission_flag::send_df;
  if (agreed.replies == reply_mode::extended && agreed.allocation_selected)
    kept |= transmission_flag::block_status_payload;
  return static_cast<std::uint16_t>(kept);
}

}  // namespace aionbd::protocol
