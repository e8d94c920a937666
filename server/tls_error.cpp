#include "server/tls_error.hpp"

#include <fmt/format.h>
#include <openssl/err.h>

namespace aionbd::server {

namespace {

class category_of_tls final : public std::error_category {
 public:
  const char* name() const noexcept override { return "tls"; }
  std::string message(int value) const override {
    const char* const reason = ERR_reason_error_string(static_cast<unsigned long>(value));
    return reason != nullptr ? std::string("TLS: ") + reason : "TLS failed";
  }
};

}  // namespace

std::string take_tls_reason() {
  const unsigned long code = ERR_peek_last_error();
  const char* const reason = ERR_reason_error_string(code);
  std::string text = reason != nullptr ? reason : fmt::format("error {:#x}", code);
  ERR_clear_error();
  return text;
}

std::error_code take_tls_failure() {
  static const category_of_tls category;
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  if (code == 0) return std::make_error_code(std::errc::protocol_error);
  if (ERR_SYSTEM_ERROR(code)) return {ERR_GET_REASON(code), std::system_category()};
  return {static_cast<int>(code), category};
}

}  // namespace aionbd::server
