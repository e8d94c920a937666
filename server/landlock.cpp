#include "server/landlock.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

#include "storage/file_descriptor.hpp"
#include "storage/last_error.hpp"

namespace aionbd::server {

namespace {

using storage::last_error;

// As in <linux/landlock.h>, whose version on the machine that builds may be older than the kernel that runs
// it.
struct ruleset {
  std::uint64_t files = 0;
  std::uint64_t network = 0;
  std::uint64_t scope = 0;
};

constexpr unsigned ask_version = 1;

constexpr std::uint64_t bits_up_to(unsigned last) {
  return (std::uint64_t{2} << last) - 1;
}

// Everything that this version of Landlock can forbid.
ruleset everything(long version) {
  ruleset all{.files = bits_up_to(12)};
  if (version >= 2) all.files = bits_up_to(13);  // linking and renaming elsewhere
  if (version >= 3) all.files = bits_up_to(14);  // truncating
  if (version >= 4) all.network = bits_up_to(1);
  if (version >= 5) all.files = bits_up_to(15);  // ioctl on devices that are opened from now on
  if (version >= 6) all.scope = bits_up_to(1);   // abstract Unix sockets and signals, of processes outside
  return all;
}

std::size_t size_of_ruleset(long version) {
  if (version >= 6) return sizeof(ruleset);
  return version >= 4 ? offsetof(ruleset, scope) : offsetof(ruleset, network);
}

}  // namespace

std::error_code forbid_files_and_connections() {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, ask_version);
  if (version < 1) return last_error();
  const ruleset all = everything(version);
  const storage::file_descriptor rules(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &all, size_of_ruleset(version), 0)));
  if (!rules) return last_error();
  if (::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0) return last_error();
  return {};
}

}  // namespace aionbd::server
