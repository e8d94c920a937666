#include "server/service_manager.hpp"

#include <sys/socket.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "server/log.hpp"
#include "server/unix_socket.hpp"

namespace aionbd::server {

service_manager::service_manager() {
  const char* const wanted = std::getenv("NOTIFY_SOCKET");
  if (wanted == nullptr || *wanted == '\0') return;
  std::string path = wanted;
  const bool is_no_file = path.front() == '@';
  if (is_no_file) path.front() = '\0';
  const auto address = is_no_file || path.front() == '/' ? unix_address::of(path) : std::nullopt;
  storage::file_descriptor fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!address || !fd || ::connect(fd.get(), address->get(), address->length()) != 0) {
    spdlog::warn("NOTIFY_SOCKET: cannot reach the service manager at {}", wanted);
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
