#include "server/sandbox.hpp"

#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/prctl.h>

#include <cstdint>
#include <ctime>
#include <system_error>
#include <utility>

#include "server/landlock.hpp"
#include "server/log.hpp"
#include "server/privileges.hpp"
#include "server/sanitized.hpp"
#include "server/syscall_filter.hpp"
#include "storage/last_error.hpp"

namespace aionbd::server {

namespace {

using storage::last_error;

// Of root: to read keys that others may not, and to remove files in folders and from owners that are not its
// own.
constexpr std::uint64_t file_capabilities = std::uint64_t{1} << CAP_DAC_OVERRIDE |
                                            std::uint64_t{1} << CAP_DAC_READ_SEARCH |
                                            std::uint64_t{1} << CAP_FOWNER;

std::error_code forbid_new_privileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0) return {};
  return last_error();
}

class parts {
 public:
  void add(const char* what, const std::error_code& failure) {
    if (failure) missing_.push_back(std::string(what) + " (" + failure.message() + ")");
  }
  std::vector<std::string> missing() && { return std::move(missing_); }

 private:
  std::vector<std::string> missing_;
};

}  // namespace

void give_up_rights(bool sandboxed, const std::optional<user_and_group>& user, file_keeper& files) {
  if (sandboxed || user) files.start(sandboxed);
  if (!sandboxed) {
    if (user) become(user->user, user->group);
    spdlog::warn("--no-sandbox: whoever breaks into this server can do all that its user can");
    return;
  }
  const auto missing = enter_sandbox(user);
  if (!missing.empty()) spdlog::warn("the sandbox is incomplete here, without: {}", fmt::join(missing, ", "));
}

std::vector<std::string> enter_sandbox(const std::optional<user_and_group>& user) {
  // The log's clock reads the time zone from a file, once.
  ::tzset();
  parts all;
  all.add("the bound on capabilities", drop_bounding_capabilities());
  if (user) become(user->user, user->group);
  all.add("dropping capabilities", drop_capabilities());
  all.add("no_new_privs", forbid_new_privileges());
  if (!is_sanitized) all.add("Landlock", forbid_files_and_connections());
  all.add("the system call filter", filter_syscalls(filtered_role::server));
  return std::move(all).missing();
}

std::vector<std::string> confine_file_keeper() {
  parts all;
  all.add("the bound on capabilities", drop_bounding_capabilities(file_capabilities));
  all.add("dropping capabilities", drop_capabilities(file_capabilities));
  all.add("no_new_privs", forbid_new_privileges());
  all.add("the system call filter", filter_syscalls(filtered_role::file_keeper));
  return std::move(all).missing();
}

}  // namespace aionbd::server
