// Gives up everything that the server does not need once its files and sockets are open, so that a client who
// found a hole in it would find little behind. SECURITY.md says what is left. In the calling thread and those
// it starts later: call with one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/file_keeper.hpp"
#include "server/identity.hpp"

namespace aionbd::server {

// The last thing before clients come: starts `files`, if they need it, then becomes `user`, if there is one,
// and unless `sandboxed` is false enters the sandbox. Says in the log what is missing. Throws
// std::system_error.
void give_up_rights(bool sandboxed, const std::optional<user_and_group>& user, file_keeper& files);

// The parts, for their own tests. Both go on without the parts that this system does not offer, and return
// them, each with the reason.

// The server itself: `user` in place of root, if one is given; no capabilities, no new privileges, no files
// and connections but those that are open, no system calls but those it uses. Throws std::system_error when
// it cannot become that user: what was asked for by name is not left out.
[[nodiscard]] std::vector<std::string> enter_sandbox(const std::optional<user_and_group>& user);

// Its file_keeper, which still opens and removes files.
std::vector<std::string> confine_file_keeper();

}  // namespace aionbd::server
