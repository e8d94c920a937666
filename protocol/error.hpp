// The two ways things fail, kept apart. A protocol_errc ends the connection and is for our log; a
// protocol::error is sent in a reply and the connection goes on. to_nbd_error() is the one place where the
// system's errors become NBD's.
#pragma once

#include <system_error>
#include <type_traits>

#include "protocol/constants.hpp"

namespace aionbd::protocol {

// Why a connection was dropped. None of these can be answered, or none is worth answering.
enum class protocol_errc {
  bad_magic = 1,
  unknown_client_flags,
  fixed_newstyle_required,
  option_limit,
  handshake_too_long,
  malformed_export_name,
  unknown_export,
  payload_too_long,
  export_name_with_extended_headers,
  bytes_ahead_of_tls,
  export_name_without_tls,
};

[[nodiscard]] const std::error_category& protocol_category() noexcept;
[[nodiscard]] std::error_code make_error_code(protocol_errc) noexcept;

// Total: whatever has no place on the wire becomes EIO ("Error values"). The caller logs the true error
// first. An EINVAL of the disk is EIO too: the request was validated before, so the fault is not the
// client's. Use error_for() of requests.hpp where the request is at hand: some errors are allowed for some
// requests only.
[[nodiscard]] error to_nbd_error(const std::error_code&) noexcept;

}  // namespace aionbd::protocol

template <>
struct std::is_error_code_enum<aionbd::protocol::protocol_errc> : std::true_type {};
