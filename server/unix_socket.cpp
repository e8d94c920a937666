#include "server/unix_socket.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "storage/last_error.hpp"

namespace aionbd::server {

namespace {

using storage::last_error;

constexpr mode_t all_permissions = 0777;

// The mask is the process's; at start there is one thread. What it leaves is what the file is created with.
int bind_with_mode(int fd, const unix_address& address, mode_t mode) {
  const mode_t before = ::umask(all_permissions & ~mode);
  const int result = ::bind(fd, address.get(), address.length());
  const int error = errno;
  ::umask(before);
  errno = error;
  return result;
}

// By a descriptor of the file and not by its name: in a folder that others can write, the name may have come
// to mean another file, which root must not give away.
std::error_code give_to(const std::string& path, const identity& owner) {
  const storage::file_descriptor file(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file) return last_error();
  struct stat facts {};
  if (::fstat(file.get(), &facts) != 0) return last_error();
  if (!S_ISSOCK(facts.st_mode)) return std::make_error_code(std::errc::not_a_socket);
  constexpr id_t unchanged = static_cast<id_t>(-1);
  if (::fchownat(file.get(), "", owner.user.value_or(unchanged), owner.group.value_or(unchanged),
                 AT_EMPTY_PATH) != 0) {
    return last_error();
  }
  return {};
}

}  // namespace

std::optional<unix_address> unix_address::of(std::string_view name) {
  unix_address made;
  // A path ends with a zero byte, a name of no file with its length.
  if (name.size() >= sizeof made.address_.sun_path) return std::nullopt;
  made.address_.sun_family = AF_UNIX;
  name.copy(made.address_.sun_path, name.size());
  made.length_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  return made;
}

// Who connects to a socket that is bound and does not listen yet is refused, so the order is: create, give
// away, listen.
storage::file_descriptor bind_unix_socket(const std::string& path, const unix_access& access,
                                          std::error_code& failure) {
  const auto address = unix_address::of(path);
  if (!address) {
    failure = std::make_error_code(std::errc::filename_too_long);
    return {};
  }
  storage::file_descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || bind_with_mode(fd.get(), *address, access.mode) != 0) {
    failure = last_error();
    return {};
  }
  if (!access.owner.user && !access.owner.group) return fd;
  failure = give_to(path, access.owner);
  if (!failure) return fd;
  ::unlink(path.c_str());
  return {};
}

}  // namespace aionbd::server
