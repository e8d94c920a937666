#include "tests/server/running_server.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/protocol/conversation.hpp"
#include "tests/support/catch.hpp"

namespace aionbd::tests {

namespace {

void pass_time() {
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  return address;
}

bool is_client_of(int fd, const std::string& path) {
  sockaddr_un address{};
  socklen_t length = sizeof address;
  int listens = 0;
  socklen_t listens_length = sizeof listens;
  if (::getsockname(fd, static_cast<sockaddr*>(static_cast<void*>(&address)), &length) != 0) return false;
  if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_length) != 0) return false;
  return address.sun_path == path && listens == 0;
}

}  // namespace

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    pass_time();
  }
  return true;
}

running_server::running_server(const server_settings& wanted) {
  make_sparse_file(file, served_size);
  exports_.add("", "", storage::block_file::open({.path = file, .create_size = {}}));
  server::config settings;
  settings.unix_paths = {socket};
  settings.threads = wanted.threads;
  settings.connections_max = wanted.connections_max;
  settings.per_address_max = wanted.per_address_max;
  settings.drain_timeout = wanted.drain_timeout;
  server_ = std::make_unique<server::server>(settings, exports_);
  thread_ = std::thread([this] {
    server_->run();
    is_running_ = false;
  });
}

running_server::~running_server() {
  if (is_running_) {
    signal(SIGTERM);
    // Clients that are still there would keep it for as long as it lets them.
    if (!stops()) std::abort();
  }
  thread_.join();
}

client running_server::connect() {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(fd >= 0);
  client made(fd, pass_time);
  const sockaddr_un address = address_of(socket);
  REQUIRE(::connect(fd, static_cast<const sockaddr*>(static_cast<const void*>(&address)), sizeof address) ==
          0);
  return made;
}

client running_server::enter() {
  client made = connect();
  made.send(joined(flags_request(3), go_request("")));
  const byte_vector expected =
      joined(server_greeting(), joined(described(7, exports_.infos().front()), ack(7)));
  REQUIRE(made.receive(expected.size()) == expected);
  return made;
}

void running_server::signal(int number) {
  REQUIRE(::kill(::getpid(), number) == 0);
}

bool running_server::stops() {
  return eventually([this] { return !is_running_; });
}

std::vector<std::size_t> running_server::clients_of_loops() const {
  std::vector<std::size_t> counts;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    std::ifstream facts(entry.path());
    std::size_t count = 0;
    bool is_epoll = false;
    for (std::string word; facts >> word;) {
      if (word != "tfd:") continue;
      is_epoll = true;
      int fd = -1;
      facts >> fd;
      if (is_client_of(fd, socket)) ++count;
    }
    if (is_epoll) counts.push_back(count);
  }
  return counts;
}

}  // namespace aionbd::tests
