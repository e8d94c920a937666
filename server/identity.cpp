#include "server/identity.hpp"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <charconv>
#include <limits>

namespace aionbd::server {

namespace {

// The largest number means "leave it as it is" to the system's calls, and is nobody's.
std::optional<id_t> parse_id(const std::string& text) {
  id_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, failure] = std::from_chars(text.data(), end, value);
  if (failure != std::errc() || stopped != end || value == std::numeric_limits<id_t>::max())
    return std::nullopt;
  return value;
}

gid_t find_group(const std::string& knob, const std::string& name) {
  if (const group* const found = ::getgrnam(name.c_str())) return found->gr_gid;
  if (const auto number = parse_id(name)) return *number;
  throw identity_error(fmt::format("{}: there is no group '{}'", knob, name));
}

}  // namespace

identity find_identity(const std::string& knob, const std::string& text) {
  const auto colon = text.find(':');
  const std::string user = text.substr(0, colon);
  if (text.empty() || (colon != text.npos && colon + 1 == text.size())) {
    throw identity_error(fmt::format("{}: '{}' should look like USER, USER:GROUP or :GROUP", knob, text));
  }
  identity found;
  if (!user.empty()) {
    // A name of digits, odd as it is, is a name first, as with chown.
    const passwd* known = ::getpwnam(user.c_str());
    const auto number = parse_id(user);
    if (known == nullptr && number) known = ::getpwuid(*number);
    if (known == nullptr && !number)
      throw identity_error(fmt::format("{}: there is no user '{}'", knob, user));
    found.user = known != nullptr ? known->pw_uid : *number;
    if (known != nullptr) found.group = known->pw_gid;
  }
  if (colon != text.npos) found.group = find_group(knob, text.substr(colon + 1));
  return found;
}

std::optional<user_and_group> find_user_to_become(const std::string& text) {
  const identity found = find_identity("--user", text);
  if (!found.user) throw identity_error(fmt::format("--user: '{}' names no user", text));
  if (!found.group) {
    throw identity_error(fmt::format("--user: nothing is known of user {}: name a group as well, as in {}:{}",
                                     *found.user, *found.user, *found.user));
  }
  if (::geteuid() == 0) return user_and_group{*found.user, *found.group};
  if (::geteuid() == *found.user && ::getegid() == *found.group) return std::nullopt;
  throw identity_error(fmt::format("--user: only root can become '{}'", text));
}

}  // namespace aionbd::server
