// Landlock: the kernel's rules on what a process may do with files and the network, beside those on system
// calls. They hold for the calling thread and those it starts later.
#pragma once

#include <system_error>

namespace aionbd::server {

// From now on no file can be opened, made, executed or removed, and no TCP port bound or connected to; what
// is open stays usable. Needs no_new_privs. Kernels before 5.13, and those that were started without it, lack
// Landlock; before 6.7 it has no say on TCP.
[[nodiscard]] std::error_code forbid_files_and_connections();

}  // namespace aionbd::server
