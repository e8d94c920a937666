// What the process may do beyond an ordinary user: gives it up, for good. All of it concerns the calling
// thread and those it starts later, so it is done while there is one.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <system_error>

namespace aionbd::server {

// Of <linux/capability.h>, as bits.
inline constexpr std::uint64_t no_capabilities = 0;

// Real, effective and saved identity; no groups beside the one. Throws std::system_error.
void become(uid_t user, gid_t group);

// Nothing that is executed gets them back. Needs CAP_SETPCAP: before become(). What is not there needs no
// dropping.
[[nodiscard]] std::error_code drop_bounding_capabilities(std::uint64_t kept = no_capabilities);

// Effective, permitted, inheritable and ambient ones.
[[nodiscard]] std::error_code drop_capabilities(std::uint64_t kept = no_capabilities);

}  // namespace aionbd::server
