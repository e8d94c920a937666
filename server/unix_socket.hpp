// Makes the file of a Unix socket with its permissions and owner from the start: nobody can connect before
// both are right. For start-up, with one thread.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "server/identity.hpp"
#include "storage/file_descriptor.hpp"

namespace aionbd::server {

struct unix_access {
  mode_t mode = 0600;
  identity owner;  // what is not set stays the server's own
};

// A name for bind and connect.
class unix_address {
 public:
  // Of a file, or of no file if it begins with a zero byte. Empty if it is too long.
  [[nodiscard]] static std::optional<unix_address> of(std::string_view name);

  const sockaddr* get() const { return static_cast<const sockaddr*>(static_cast<const void*>(&address_)); }
  socklen_t length() const { return length_; }

 private:
  sockaddr_un address_{};
  socklen_t length_ = 0;
};

// Bound to `path`, where nothing may be, and not listening yet. Leaves no file behind on a failure.
[[nodiscard]] storage::file_descriptor bind_unix_socket(const std::string& path, const unix_access& access,
                                                        std::error_code& failure);

}  // namespace aionbd::server
