#include "server/service_manager.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>
#include <string>

#include "server/log.hpp"

namespace aionbd::server {

service_manager::service_manager() {
  const char* const wanted = std::getenv("NOTIFY_SOCKET");
  if (wanted == nullptr || *wanted == '\0') return;
  const std::string path = wanted;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  storage::file_descriptor fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const bool fits = path.size() < sizeof address.sun_path && (path.front() == '/' || path.front() == '@');
  if (fits) path.copy(address.sun_path, path.size());
  // '@' stands for a name that is not in the file system, which begins with a zero.
  if (path.front() == '@') address.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  if (!fits || !fd ||
      ::connect(fd.get(), static_cast<const sockaddr*>(static_cast<const void*>(&address)), length) != 0) {
    spdlog::warn("NOTIFY_SOCKET: cannot reach the service manager at {}", path);
    return;
  }
  socket_ = std::move(fd);
}

void service_manager::tell(std::string_view state) const {
  if (!socket_) return;
  // Readiness must not be lost to a queue that is full for a moment, so this may wait.
  if (::send(socket_.get(), state.data(), state.size(), MSG_NOSIGNAL) < 0) {
    spdlog::warn("the service manager was not told {}", state);
  }
}

}  // namespace aionbd::server
