// What goes wrong with TLS: files at fault, and why OpenSSL's last call failed.
#pragma once

#include <stdexcept>
#include <string>
#include <system_error>

namespace aionbd::server {

// A file at fault, and what is wrong with it: what() names both and the option.
class tls_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Why OpenSSL's last call on this thread failed, in its words and as an error of ours. Both empty OpenSSL's
// queue, or the next failure would be taken for this one.
[[nodiscard]] std::string take_tls_reason();
[[nodiscard]] std::error_code take_tls_failure();

}  // namespace aionbd::server
