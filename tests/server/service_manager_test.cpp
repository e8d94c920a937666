#include "server/service_manager.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <optional>

#include "tests/server/log_lines.hpp"
#include "tests/server/temporary_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

// The manager's end, and NOTIFY_SOCKET while it lives.
class listening_manager {
 public:
  explicit listening_manager(const std::string& name) : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof address.sun_path);
    if (name.front() == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    REQUIRE(::bind(fd_, static_cast<const sockaddr*>(static_cast<const void*>(&address)), length) == 0);
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  listening_manager(const listening_manager&) = delete;
  listening_manager& operator=(const listening_manager&) = delete;
  ~listening_manager() {
    ::close(fd_);
    ::unsetenv("NOTIFY_SOCKET");
  }

  std::string hears() {
    char text[100];
    const ssize_t length = ::recv(fd_, text, sizeof text, MSG_DONTWAIT);
    return length < 0 ? "nothing" : std::string(text, static_cast<std::size_t>(length));
  }

 private:
  int fd_;
};

}  // namespace

TEST_CASE("a_service_manager_is_told_by_path_and_by_abstract_name") {
  const temporary_folder folder(temporary_folder::place::system);
  for (const std::string& name : {folder.path_of("notify"), "@aionbd-test-" + std::to_string(::getpid())}) {
    CAPTURE(name);
    listening_manager manager(name);
    const server::service_manager under_test;
    under_test.tell("READY=1");
    CHECK(manager.hears() == "READY=1");
    under_test.tell("STOPPING=1");
    CHECK(manager.hears() == "STOPPING=1");
  }
}

TEST_CASE("without_a_service_manager_nobody_is_told_and_nothing_is_said") {
  ::unsetenv("NOTIFY_SOCKET");
  const log_lines log;
  const server::service_manager under_test;
  under_test.tell("READY=1");
  CHECK(log.all().empty());
}

TEST_CASE("a_service_manager_that_cannot_be_reached_is_said_once_and_no_matter") {
  const temporary_folder folder(temporary_folder::place::system);
  for (const std::string& name :
       {folder.path_of("nobody"), std::string("relative"), "/" + std::string(200, 'x'), std::string("@")}) {
    CAPTURE(name);
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
    const log_lines log;
    const server::service_manager under_test;
    under_test.tell("READY=1");
    CHECK(log.count_with("NOTIFY_SOCKET: cannot reach the service manager at " + name) == 1);
    CHECK(log.all().size() == 1);
  }
  ::unsetenv("NOTIFY_SOCKET");
}

TEST_CASE("a_service_manager_that_went_away_is_no_matter") {
  const temporary_folder folder(temporary_folder::place::system);
  std::optional<listening_manager> manager(folder.path_of("notify"));
  const server::service_manager under_test;
  manager.reset();
  const log_lines log;
  under_test.tell("STOPPING=1");
  CHECK(log.count_with("the service manager was not told STOPPING=1") == 1);
}
