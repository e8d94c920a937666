#include "server/file_keeper.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>

#include "server/sandbox.hpp"
#include "tests/server/child_process.hpp"
#include "tests/server/running_server.hpp"
#include "tests/server/temporary_folder.hpp"

using namespace aionbd;
using namespace aionbd::tests;
namespace fs = std::filesystem;

namespace {

byte_vector content_of(const storage::file_descriptor& file) {
  byte_vector content(100);
  const ssize_t length = ::read(file.get(), content.data(), content.size());
  REQUIRE(length >= 0);
  content.resize(static_cast<std::size_t>(length));
  return content;
}

struct rig {
  temporary_folder folder;
  std::string path = folder.path_of("file");
  server::file_keeper files;

  byte_vector read() {
    std::error_code failure;
    const auto opened = files.open(path, failure);
    REQUIRE_FALSE(failure);
    return content_of(opened);
  }
  std::error_code failure_of(const std::string& which) {
    std::error_code failure;
    CHECK_FALSE(files.open(which, failure));
    return failure;
  }
};

// How a keeper is used: by the process itself, or by a child, with or without its confinement.
struct way {
  const char* name;
  bool starts;
  bool confined;
};
const way ways[] = {{"itself", false, false}, {"child", true, false}, {"confined child", true, true}};

}  // namespace

TEST_CASE("what_is_read_is_what_stands_at_the_path_then") {
  for (const auto& how : ways) {
    CAPTURE(how.name);
    rig on;
    write_file(on.path, 0, pattern(10));
    on.files.grant_reading(on.path);
    if (how.starts) on.files.start(how.confined);
    CHECK(on.read() == pattern(10));
    // A renewed certificate comes as a new file under the old name.
    write_file(on.folder.path_of("new"), 0, pattern(20, 2));
    fs::rename(on.folder.path_of("new"), on.path);
    CHECK(on.read() == pattern(20, 2));
    fs::remove(on.path);
    CHECK(on.failure_of(on.path) == std::errc::no_such_file_or_directory);
    write_file(on.path, 0, pattern(5, 3));
    CHECK(on.read() == pattern(5, 3));
  }
}

TEST_CASE("a_path_that_was_not_granted_is_not_opened_and_not_removed") {
  for (const auto& how : ways) {
    CAPTURE(how.name);
    rig on;
    write_file(on.path, 0, pattern(10));
    const std::string other = on.folder.path_of("other");
    write_file(other, 0, pattern(10));
    on.files.grant_reading(on.path);
    if (how.starts) on.files.start(how.confined);
    CHECK(on.failure_of(other) == std::errc::permission_denied);
    CHECK(on.files.remove(other) == std::errc::permission_denied);
    // To read is not to remove.
    CHECK(on.files.remove(on.path) == std::errc::permission_denied);
    CHECK(fs::exists(on.path));
  }
}

TEST_CASE("what_was_granted_for_removal_is_removed_once_and_nothing_in_its_place") {
  for (const auto& how : ways) {
    CAPTURE(how.name);
    rig on;
    write_file(on.path, 0, pattern(10));
    on.files.grant_removal(on.path);
    if (how.starts) on.files.start(how.confined);
    CHECK(on.failure_of(on.path) == std::errc::permission_denied);
    // The old file is kept, so that the new one cannot have its inode.
    fs::rename(on.path, on.folder.path_of("old"));
    write_file(on.path, 0, pattern(10));
    CHECK_FALSE(on.files.remove(on.path));
    CHECK(fs::exists(on.path));
    fs::rename(on.folder.path_of("old"), on.path);
    CHECK_FALSE(on.files.remove(on.path));
    CHECK_FALSE(fs::exists(on.path));
    CHECK_FALSE(on.files.remove(on.path));
  }
}

TEST_CASE("a_pipe_in_the_place_of_a_file_keeps_nobody_waiting") {
  for (const auto& how : ways) {
    CAPTURE(how.name);
    rig on;
    on.files.grant_reading(on.path);
    if (how.starts) on.files.start(how.confined);
    REQUIRE(::mkfifo(on.path.c_str(), 0600) == 0);
    CHECK(on.read().empty());
  }
}

TEST_CASE(
    "a_keeper_that_a_file_system_has_kept_is_asked_again_when_it_is_back_and_its_late_answer_is_dropped") {
  temporary_folder folder;
  const std::string slow = folder.path_of("slow"), other = folder.path_of("other");
  write_file(slow, 0, pattern(10, 1));
  write_file(other, 0, pattern(20, 2));
  server::file_keeper files(std::chrono::milliseconds(100));
  files.grant_reading(slow);
  files.grant_reading(other);
  files.start(true);
  std::error_code failure;
  REQUIRE(::kill(files.child(), SIGSTOP) == 0);
  for (int i = 0; i < 3; ++i) {
    CHECK_FALSE(files.open(slow, failure));
    CHECK(failure == std::errc::timed_out);
  }
  REQUIRE(::kill(files.child(), SIGCONT) == 0);
  storage::file_descriptor opened;
  CHECK(eventually([&] {
    opened = files.open(other, failure);
    return !failure;
  }));
  CHECK(content_of(opened) == pattern(20, 2));
}

TEST_CASE("a_keeper_that_a_file_system_has_kept_is_not_waited_for_at_the_end_and_sees_it_when_it_is_back") {
  pid_t child = -1;
  {
    rig on;
    server::file_keeper files(std::chrono::milliseconds(100));
    files.grant_reading(on.path);
    files.start(true);
    child = files.child();
    REQUIRE(::kill(child, SIGSTOP) == 0);
    std::error_code failure;
    CHECK_FALSE(files.open(on.path, failure));
  }
  int status = -1;
  CHECK(::waitpid(child, &status, WNOHANG) == 0);
  REQUIRE(::kill(child, SIGCONT) == 0);
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

TEST_CASE("with_nothing_granted_there_is_no_child") {
  server::file_keeper files;
  files.start(true);
  CHECK(files.child() == -1);
}

TEST_CASE("a_process_in_the_sandbox_still_reaches_what_was_granted") {
  rig on;
  write_file(on.path, 0, pattern(10));
  CHECK(in_child([&] {
          server::file_keeper files;
          files.grant_reading(on.path);
          files.grant_removal(on.path);
          files.start(true);
          if (server::enter_sandbox(std::nullopt).size() > 1) return 255;
          std::error_code failure;
          const auto opened = files.open(on.path, failure);
          std::byte byte{};
          if (failure || ::read(opened.get(), &byte, 1) != 1 || byte != pattern(1).front()) return 1;
          return files.remove(on.path) ? 2 : 0;
        }) == child_end{0, 0});
  CHECK_FALSE(fs::exists(on.path));
}

TEST_CASE("a_process_that_is_not_root_any_more_still_reads_what_root_may") {
  if (::geteuid() != 0) return;
  rig on;
  write_file(on.path, 0, pattern(10));
  REQUIRE(::chmod(on.path.c_str(), 0) == 0);
  CHECK(in_child([&] {
          server::file_keeper files;
          files.grant_reading(on.path);
          files.start(true);
          if (server::enter_sandbox(server::user_and_group{65534, 65534}).size() > 1) return 255;
          std::error_code failure;
          return files.open(on.path, failure) ? 0 : failure.value();
        }) == child_end{0, 0});
}

TEST_CASE("the_child_has_nothing_open_but_the_way_to_its_parent") {
  rig on;
  write_file(on.path, 0, pattern(10));
  on.files.grant_reading(on.path);
  const int image = ::open(on.path.c_str(), O_RDONLY);
  on.files.start(true);
  CHECK(on.read() == pattern(10));  // it is up
  const std::string open = "/proc/" + std::to_string(on.files.child()) + "/fd";
  const auto only_a_socket = [&] {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(open)) {
      std::error_code closed;
      found.push_back(fs::read_symlink(entry.path(), closed).string());
    }
    return found.size() == 1 && found.front().find("socket:") == 0;
  };
  CHECK(eventually(only_a_socket));  // it closes what it sent after sending it
  ::close(image);
}

TEST_CASE("the_child_goes_with_its_parent_and_not_by_signals") {
  pid_t child = -1;
  {
    rig on;
    write_file(on.path, 0, pattern(10));
    on.files.grant_reading(on.path);
    on.files.start(true);
    child = on.files.child();
    for (const int each : {SIGTERM, SIGINT, SIGHUP}) REQUIRE(::kill(child, each) == 0);
    CHECK(on.read() == pattern(10));
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

TEST_CASE("a_process_without_room_for_the_descriptor_is_told_so") {
  rig on;
  write_file(on.path, 0, pattern(10));
  on.files.grant_reading(on.path);
  on.files.start(true);
  CHECK(on.read() == pattern(10));
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  std::error_code failure;
  const bool opened = static_cast<bool>(on.files.open(on.path, failure));
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK_FALSE(opened);
  CHECK(failure == std::errc::too_many_files_open);
  CHECK(on.read() == pattern(10));
}

TEST_CASE("when_the_child_is_killed_there_are_errors_and_no_hang") {
  rig on;
  write_file(on.path, 0, pattern(10));
  on.files.grant_reading(on.path);
  on.files.start(true);
  REQUIRE(::kill(on.files.child(), SIGKILL) == 0);
  int status = -1;
  REQUIRE(::waitpid(on.files.child(), &status, 0) == on.files.child());
  CHECK(on.failure_of(on.path) == std::errc::io_error);
  CHECK(on.failure_of(on.path) == std::errc::io_error);
}
