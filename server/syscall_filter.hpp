// Which system calls the process may make from now on, all its threads included: a list of those it needs.
// Others are refused with EPERM; a few that only an attacker would make end the process.
#pragma once

#include <system_error>

namespace aionbd::server {

enum class filtered_role {
  server,       // works on what is open, takes clients, starts threads
  file_keeper,  // opens files for reading, removes files, and passes descriptors on
};

// Cannot be undone. Needs no_new_privs, or root.
[[nodiscard]] std::error_code filter_syscalls(filtered_role role);

}  // namespace aionbd::server
