// Makes the file of a Unix socket with its permissions and owner from the start: nobody can connect before
// both are right. For start-up, with one thread.
#pragma once

#include <sys/types.h>

#include <string>
#include <system_error>

#include "server/identity.hpp"
#include "storage/file_descriptor.hpp"

namespace aionbd::server {

struct unix_access {
  mode_t mode = 0600;
  identity owner;  // what is not set stays the server's own
};

// Bound to `path`, where nothing may be, and not listening yet. Leaves no file behind on a failure.
[[nodiscard]] storage::file_descriptor bind_unix_socket(const std::string& path, const unix_access& access,
                                                        std::error_code& failure);

}  // namespace aionbd::server
