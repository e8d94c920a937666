#include "server/listeners.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "server/unix_socket.hpp"
#include "tests/server/log_lines.hpp"
#include "tests/server/temporary_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
namespace asio = boost::asio;

namespace {

server::config on_unix(const std::string& path) {
  server::config settings;
  settings.unix_paths = {path};
  return settings;
}

server::config on_tcp(const std::string& host, std::uint16_t port, bool must_exist = true) {
  server::config settings;
  settings.tcp = {{host, port, must_exist}};
  return settings;
}

std::string error_of(asio::io_context& context, const server::config& settings) {
  try {
    server::file_keeper files;
    (void)server::open_listeners(context, settings, files);
    return "";
  } catch (const server::listen_error& error) {
    return error.what();
  }
}

// A socket of this kind, bound to a path; listening if it is a stream.
class bound_socket {
 public:
  bound_socket(const std::string& path, int type) : fd_(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0)) {
    REQUIRE(fd_ >= 0);
    const sockaddr_un address = address_of(path);
    REQUIRE(::bind(fd_, static_cast<const sockaddr*>(static_cast<const void*>(&address)), sizeof address) ==
            0);
    if (type == SOCK_STREAM) REQUIRE(::listen(fd_, 1) == 0);
  }
  bound_socket(const bound_socket&) = delete;
  bound_socket& operator=(const bound_socket&) = delete;
  ~bound_socket() { ::close(fd_); }
  int get() const { return fd_; }

  static sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof address.sun_path);
    path.copy(address.sun_path, path.size());
    return address;
  }

 private:
  int fd_;
};

bool can_connect(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = bound_socket::address_of(path);
  const bool connected =
      ::connect(fd, static_cast<const sockaddr*>(static_cast<const void*>(&address)), sizeof address) == 0;
  ::close(fd);
  return connected;
}

struct rig {
  temporary_folder folder{temporary_folder::place::system};
  std::string path = folder.path_of("a.sock");
  asio::io_context context;
  server::file_keeper files;
};

struct stat facts_of(const std::string& path) {
  struct stat facts {};
  REQUIRE(::lstat(path.c_str(), &facts) == 0);
  return facts;
}

}  // namespace

TEST_CASE("a_unix_socket_is_its_owners_alone_and_removed_at_the_end") {
  rig on;
  const mode_t mask = ::umask(0);
  {
    const auto listeners = server::open_listeners(on.context, on_unix(on.path), on.files);
    REQUIRE(listeners.size() == 1);
    CHECK(listeners.front().address == "unix:" + on.path);
    CHECK(can_connect(on.path));
    struct stat facts {};
    REQUIRE(::lstat(on.path.c_str(), &facts) == 0);
    CHECK((facts.st_mode & 0777) == 0600);
  }
  CHECK(::umask(mask) == 0);  // as it was before
  CHECK_FALSE(std::filesystem::exists(on.path));
}

TEST_CASE("a_unix_socket_has_the_permissions_that_were_asked_for_whatever_the_mask") {
  for (const mode_t mask : {mode_t{0}, mode_t{022}, mode_t{0777}}) {
    for (const mode_t mode : {mode_t{0}, mode_t{0600}, mode_t{0660}, mode_t{0666}, mode_t{0777}}) {
      rig on;
      server::config settings = on_unix(on.path);
      settings.unix_mode = mode;
      const mode_t before = ::umask(mask);
      const auto listeners = server::open_listeners(on.context, settings, on.files);
      CHECK(::umask(before) == mask);
      CHECK((facts_of(on.path).st_mode & 07777) == mode);
    }
  }
}

TEST_CASE("a_unix_socket_belongs_to_whom_it_was_given") {
  if (::geteuid() != 0) return;
  rig on;
  server::config settings = on_unix(on.path);
  SECTION("a user and a group") {
    settings.unix_owner = "12345:54321";
    const auto listeners = server::open_listeners(on.context, settings, on.files);
    CHECK(facts_of(on.path).st_uid == 12345);
    CHECK(facts_of(on.path).st_gid == 54321);
    CHECK((facts_of(on.path).st_mode & 07777) == 0600);
  }
  SECTION("a group alone") {
    settings.unix_owner = ":54321";
    settings.unix_mode = 0660;
    const auto listeners = server::open_listeners(on.context, settings, on.files);
    CHECK(facts_of(on.path).st_uid == 0);
    CHECK(facts_of(on.path).st_gid == 54321);
    CHECK((facts_of(on.path).st_mode & 07777) == 0660);
    CHECK(can_connect(on.path));
  }
  CHECK_FALSE(std::filesystem::exists(on.path));
}

TEST_CASE("a_unix_socket_for_a_user_nobody_knows_is_not_made") {
  rig on;
  server::config settings = on_unix(on.path);
  settings.unix_owner = "no-such-user";
  CHECK_THROWS_AS(server::open_listeners(on.context, settings, on.files), server::identity_error);
  CHECK_FALSE(std::filesystem::exists(on.path));
}

// Before it listens it is refused, whoever asks: there is no time in which it has another's permissions.
TEST_CASE("a_unix_socket_that_is_bound_does_not_listen_yet") {
  rig on;
  std::error_code failure;
  const auto bound = server::bind_unix_socket(on.path, {.mode = 0666, .owner = {}}, failure);
  CHECK_FALSE(failure);
  CHECK((facts_of(on.path).st_mode & 07777) == 0666);
  CHECK_FALSE(can_connect(on.path));
}

TEST_CASE("a_stale_unix_socket_is_replaced") {
  rig on;
  { const bound_socket killed(on.path, SOCK_STREAM); }
  REQUIRE(std::filesystem::exists(on.path));
  const auto listeners = server::open_listeners(on.context, on_unix(on.path), on.files);
  CHECK(can_connect(on.path));
}

TEST_CASE("a_live_unix_socket_is_an_error_and_left_alone") {
  rig on;
  const bound_socket other(on.path, SOCK_STREAM);
  CHECK(error_of(on.context, on_unix(on.path)) ==
        "--unix: another server listens on " + on.path + "; stop it, or choose another path");
  CHECK(can_connect(on.path));
}

// It was taken for stale, because one cannot connect to it as to a stream, and removed.
TEST_CASE("a_live_socket_of_another_kind_is_an_error_and_left_alone") {
  rig on;
  const bound_socket other(on.path, SOCK_DGRAM);
  CHECK(error_of(on.context, on_unix(on.path)).find("--unix: ") == 0);
  CHECK(std::filesystem::exists(on.path));
}

TEST_CASE("a_file_where_the_unix_socket_should_be_is_an_error_and_left_alone") {
  rig on;
  write_file(on.path, 0, pattern(10));
  CHECK(error_of(on.context, on_unix(on.path)) ==
        "--unix: " + on.path + " exists and is not a socket; it is left alone");
  CHECK(read_file(on.path, 0, 10) == pattern(10));
}

TEST_CASE("a_symbolic_link_where_the_unix_socket_should_be_is_left_alone") {
  rig on;
  std::filesystem::create_symlink(on.folder.path_of("elsewhere"), on.path);
  CHECK(error_of(on.context, on_unix(on.path)).find("is not a socket") != std::string::npos);
  CHECK(std::filesystem::is_symlink(on.path));
}

TEST_CASE("a_unix_socket_in_a_folder_that_is_not_there_is_an_error") {
  rig on;
  const std::string path = on.folder.path_of("nowhere/a.sock");
  CHECK(error_of(on.context, on_unix(path)) ==
        "--unix: cannot create " + path + ": No such file or directory");
}

TEST_CASE("what_took_the_place_of_our_unix_socket_is_not_removed") {
  rig on;
  {
    const auto listeners = server::open_listeners(on.context, on_unix(on.path), on.files);
    std::filesystem::remove(on.path);
    write_file(on.path, 0, pattern(1));
  }
  CHECK(std::filesystem::exists(on.path));
}

TEST_CASE("a_unix_socket_that_somebody_removed_is_no_matter_at_the_end") {
  rig on;
  const auto listeners = server::open_listeners(on.context, on_unix(on.path), on.files);
  std::filesystem::remove(on.path);
}

TEST_CASE("sockets_made_before_a_failure_are_removed") {
  rig on;
  server::config settings = on_unix(on.path);
  settings.unix_paths.push_back(on.folder.path_of("nowhere/b.sock"));
  CHECK_FALSE(error_of(on.context, settings).empty());
  CHECK_FALSE(std::filesystem::exists(on.path));
}

TEST_CASE("port_0_picks_one_and_says_which") {
  rig on;
  const auto listeners = server::open_listeners(on.context, on_tcp("127.0.0.1", 0), on.files);
  REQUIRE(listeners.size() == 1);
  const std::string& address = listeners.front().address;
  REQUIRE(address.find("127.0.0.1:") == 0);
  const int port = std::stoi(address.substr(10));
  CHECK(port > 0);
  asio::ip::tcp::socket client(on.context);
  client.connect({asio::ip::address_v4::loopback(), static_cast<std::uint16_t>(port)});
}

TEST_CASE("a_tcp_port_in_use_is_an_error_with_advice") {
  rig on;
  const asio::ip::tcp::acceptor other(on.context, {asio::ip::address_v4::loopback(), 0});
  const std::uint16_t port = other.local_endpoint().port();
  CHECK(error_of(on.context, on_tcp("127.0.0.1", port)) ==
        "cannot listen on 127.0.0.1:" + std::to_string(port) +
            ": Address already in use; another server is there: stop it, or choose another port");
  CHECK_FALSE(error_of(on.context, on_tcp("127.0.0.1", port, false)).empty());
}

TEST_CASE("an_address_that_is_not_this_machines_is_an_error_if_it_was_asked_for") {
  rig on;
  CHECK(error_of(on.context, on_tcp("192.0.2.1", 0)) ==
        "cannot listen on 192.0.2.1:0: Cannot assign requested address");
}

TEST_CASE("an_address_that_may_be_missing_is_no_error_but_none_at_all_is") {
  rig on;
  CHECK(error_of(on.context, on_tcp("192.0.2.1", 0, false)) ==
        "--listen: none of the addresses exists on this machine");
  server::config settings = on_tcp("192.0.2.1", 0, false);
  settings.tcp.push_back({"127.0.0.1", 0, true});
  CHECK(server::open_listeners(on.context, settings, on.files).size() == 1);
}

TEST_CASE("a_host_that_nobody_knows_is_named") {
  rig on;
  const std::string sentence = error_of(on.context, on_tcp("no such host", 0));
  CHECK(sentence.find("--listen: 'no such host' is not known: ") == 0);
}

TEST_CASE("every_address_of_a_name_is_listened_on") {
  rig on;
  const auto listeners = server::open_listeners(on.context, on_tcp("localhost", 0), on.files);
  REQUIRE_FALSE(listeners.empty());
  for (const auto& each : listeners) {
    CAPTURE(each.address);
    CHECK((each.address.find("127.0.0.1:") == 0 || each.address.find("[::1]:") == 0));
  }
}

namespace {

// In a child whose descriptor 3 is `fd`, handed over as systemd does: 0 when `check` holds.
template <typename Check>
int with_handed_over(int fd, Check check) {
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string self = std::to_string(::getpid());
    ::setenv("LISTEN_PID", self.c_str(), 1);
    ::setenv("LISTEN_FDS", "1", 1);
    if (::dup2(fd, 3) != 3) ::_exit(99);
    ::_exit(check() ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("sockets_that_systemd_hands_over_are_used_and_no_others") {
  rig on;
  const bound_socket handed_over(on.path, SOCK_STREAM);
  const std::string own = on.folder.path_of("own.sock");
  CHECK(with_handed_over(handed_over.get(), [&] {
          asio::io_context context;
          server::file_keeper files;
          const auto listeners = server::open_listeners(context, on_unix(own), files);
          return listeners.size() == 1 && listeners.front().address == "unix:" + on.path &&
                 !std::filesystem::exists(own) && std::getenv("LISTEN_FDS") == nullptr;
        }) == 0);
  CHECK(std::filesystem::exists(on.path));  // it is systemd's to remove
}

TEST_CASE("addresses_that_are_not_used_because_systemd_hands_some_over_are_warned_about") {
  rig on;
  const bound_socket handed_over(on.path, SOCK_STREAM);
  const auto warnings = [&](const server::config& settings) {
    return with_handed_over(handed_over.get(), [&] {
      const log_lines log;
      asio::io_context context;
      server::file_keeper files;
      (void)server::open_listeners(context, settings, files);
      return log.count_with("warning: --listen and --unix are not used: ") == 1 && log.all().size() == 1;
    });
  };
  server::config settings = on_tcp("127.0.0.1", 0);
  CHECK(warnings(settings) == 1);  // the default
  settings.addresses_were_given = true;
  CHECK(warnings(settings) == 0);
}

TEST_CASE("a_tcp_socket_that_systemd_hands_over_is_called_by_its_address") {
  rig on;
  asio::ip::tcp::acceptor handed_over(on.context, {asio::ip::address_v4::loopback(), 0});
  const std::string expected = "127.0.0.1:" + std::to_string(handed_over.local_endpoint().port());
  CHECK(with_handed_over(handed_over.native_handle(), [&] {
          asio::io_context context;
          server::file_keeper files;
          const auto listeners = server::open_listeners(context, {}, files);
          return listeners.size() == 1 && listeners.front().address == expected;
        }) == 0);
}

TEST_CASE("a_descriptor_that_systemd_hands_over_must_be_a_listening_socket") {
  rig on;
  const bound_socket datagrams(on.path, SOCK_DGRAM);
  CHECK(with_handed_over(datagrams.get(), [&] {
          asio::io_context context;
          return error_of(context, {}) == "LISTEN_FDS: file descriptor 3 is not a listening stream socket";
        }) == 0);
}
