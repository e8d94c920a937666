#include "server/privileges.hpp"

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "storage/last_error.hpp"

namespace aionbd::server {

namespace {

using storage::last_error;

constexpr unsigned capabilities_max = 64;
constexpr unsigned capabilities_per_word = 32;

void demand(int result, const char* doing) {
  if (result != 0) throw std::system_error(last_error(), doing);
}

bool is_in(std::uint64_t set, unsigned capability) {
  return (set >> capability & 1U) != 0;
}

// The C library has no function for these.
int get(__user_cap_header_struct& header, __user_cap_data_struct (&sets)[_LINUX_CAPABILITY_U32S_3]) {
  return static_cast<int>(::syscall(SYS_capget, &header, sets));
}

int set(__user_cap_header_struct& header, const __user_cap_data_struct (&sets)[_LINUX_CAPABILITY_U32S_3]) {
  return static_cast<int>(::syscall(SYS_capset, &header, sets));
}

}  // namespace

void become(uid_t user, gid_t group) {
  // Groups first: a user who is not root may not change them.
  demand(::setgroups(0, nullptr), "--user: cannot leave the groups of root");
  demand(::setresgid(group, group, group), "--user: cannot switch to the group");
  demand(::setresuid(user, user, user), "--user: cannot switch to the user");
}

std::error_code drop_bounding_capabilities(std::uint64_t kept) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
  if (get(header, sets) != 0) return last_error();
  // Who cannot drop them has no capabilities either, and without new privileges the bound is without meaning.
  if (!is_in(sets[0].effective, CAP_SETPCAP)) return {};
  for (unsigned capability = 0; capability < capabilities_max; ++capability) {
    if (is_in(kept, capability) || ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) != 1) continue;
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return last_error();
  }
  return {};
}

std::error_code drop_capabilities(std::uint64_t kept) {
  // Kernels before 4.3 have no ambient ones.
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL) return last_error();
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
  if (get(header, sets) != 0) return last_error();
  for (unsigned word = 0; word < _LINUX_CAPABILITY_U32S_3; ++word) {
    const auto wanted = static_cast<std::uint32_t>(kept >> (word * capabilities_per_word));
    sets[word].permitted &= wanted;
    sets[word].effective = sets[word].permitted;
    sets[word].inheritable = 0;
  }
  if (set(header, sets) != 0) return last_error();
  return {};
}

}  // namespace aionbd::server
