#include "protocol/error.hpp"

#include <cerrno>
#include <string>

namespace aionbd::protocol {
namespace {

class category_of_protocol final : public std::error_category {
 public:
  const char* name() const noexcept override { return "nbd protocol"; }

  std::string message(int value) const override {
    switch (static_cast<protocol_errc>(value)) {
      case protocol_errc::bad_magic:
        return "the peer does not speak NBD here: wrong magic number";
      case protocol_errc::unknown_client_flags:
        return "the client set handshake flags that were not offered";
      case protocol_errc::fixed_newstyle_required:
        return "an option that needs fixed newstyle, to which the client did not agree";
      case protocol_errc::option_limit:
        return "too many options in one handshake";
      case protocol_errc::handshake_too_long:
        return "too many bytes in one handshake";
      case protocol_errc::malformed_export_name:
        return "an export name that is too long or is not UTF-8 without NUL";
      case protocol_errc::unknown_export:
        return "EXPORT_NAME asked for an export that does not exist";
      case protocol_errc::payload_too_long:
        return "a payload that is too long to be read and discarded";
      case protocol_errc::export_name_with_extended_headers:
        return "EXPORT_NAME after extended headers were agreed";
      case protocol_errc::bytes_ahead_of_tls:
        return "bytes in clear text behind STARTTLS";
      case protocol_errc::export_name_without_tls:
        return "EXPORT_NAME without the TLS that this server requires";
    }
    return "unknown protocol error";
  }
};

// errno values live in two categories of the standard library; a foreign category may still know its errno.
std::error_condition errno_of(const std::error_code& code) noexcept {
  if (code.category() == std::system_category() || code.category() == std::generic_category()) {
    return {code.value(), std::generic_category()};
  }
  return code.default_error_condition();
}

}  // namespace

const std::error_category& protocol_category() noexcept {
  static const category_of_protocol instance;
  return instance;
}

std::error_code make_error_code(protocol_errc code) noexcept {
  return {static_cast<int>(code), protocol_category()};
}

error to_nbd_error(const std::error_code& code) noexcept {
  if (!code) return error::none;
  const std::error_condition condition = errno_of(code);
  if (condition.category() != std::generic_category()) return error::eio;
  switch (condition.value()) {
    case EPERM:
    case EACCES:
    case EROFS:
      return error::eperm;
    case ENOMEM:
      return error::enomem;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return error::enospc;
    case EOPNOTSUPP:
#if ENOTSUP != EOPNOTSUPP
    case ENOTSUP:
#endif
      return error::enotsup;
    case ESHUTDOWN:
      return error::eshutdown;
    default:
      return error::eio;
  }
}

}  // namespace aionbd::protocol
