// Users and groups by name or number. For start-up: asks the system's databases, which may read files.
#pragma once

#include <sys/types.h>

#include <optional>
#include <stdexcept>
#include <string>

namespace aionbd::server {

// Its sentence names the option, and what it does not know.
class identity_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct identity {
  std::optional<uid_t> user;
  std::optional<gid_t> group;  // if none was given: the user's own, when the system knows the user
};

// "USER", "USER:GROUP" or ":GROUP". Throws identity_error.
[[nodiscard]] identity find_identity(const std::string& knob, const std::string& text);

struct user_and_group {
  uid_t user;
  gid_t group;
};

// Whom `--user TEXT` names; nothing if the process is that user already. Throws identity_error, also when it
// is not root, who alone can become somebody else.
[[nodiscard]] std::optional<user_and_group> find_user_to_become(const std::string& text);

}  // namespace aionbd::server
