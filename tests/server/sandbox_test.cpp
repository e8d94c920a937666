#include "server/sandbox.hpp"

#include <fcntl.h>
#include <grp.h>
#include <linux/fiemap.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "server/landlock.hpp"
#include "server/privileges.hpp"
#include "server/sanitized.hpp"
#include "server/syscall_filter.hpp"
#include "storage/aio_queue.hpp"
#include "storage/extents.hpp"
#include "storage/offload_queue.hpp"
#include "tests/server/child_process.hpp"
#include "tests/server/temporary_folder.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using server::is_sanitized;

namespace {

constexpr int in_order = 0;

// The filter is what these tests are about; without it they would pass for nothing.
bool enters() {
  const auto missing = server::enter_sandbox(std::nullopt);
  for (const auto& each : missing) {
    if (each.find("Landlock") != 0) return false;
  }
  return true;
}

int error_of(long result) {
  return result < 0 ? errno : in_order;
}

// How a call ends for a process in the sandbox: as a child's end with its errno.
child_end tries(const std::function<long()>& call) {
  return in_child([&] {
    constexpr int no_sandbox = 255;
    if (!enters()) return no_sandbox;
    errno = 0;
    return error_of(call());
  });
}

const child_end refused{EPERM, 0};
const child_end killed{-1, SIGSYS};

std::string status_line(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.find(field + ":\t") == 0) return line.substr(field.size() + 2);
  }
  return "none";
}

}  // namespace

TEST_CASE("an_attackers_calls_end_the_process") {
  struct {
    const char* name;
    std::function<long()> call;
    bool of_sanitizers = false;
  } const rows[] = {
      {"execve",
       [] {
         char program[] = "/bin/true";
         char* arguments[] = {program, nullptr};
         return ::execve(program, arguments, nullptr);
       }},
      {"execveat", [] { return ::syscall(SYS_execveat, 0, "", nullptr, nullptr, AT_EMPTY_PATH); }},
      {"ptrace", [] { return ::ptrace(PTRACE_ATTACH, ::getppid(), nullptr, nullptr); }, true},
      {"process_vm_writev", [] { return ::syscall(SYS_process_vm_writev, 1, nullptr, 0, nullptr, 0, 0); }},
      {"io_uring_setup", [] { return ::syscall(SYS_io_uring_setup, 1, nullptr); }},
      {"bpf", [] { return ::syscall(SYS_bpf, 0, nullptr, 0); }},
      {"mount", [] { return ::syscall(SYS_mount, nullptr, nullptr, nullptr, 0, nullptr); }},
      {"unshare", [] { return ::unshare(CLONE_NEWUSER); }},
      {"userfaultfd", [] { return ::syscall(SYS_userfaultfd, 0); }},
  };
  for (const auto& row : rows) {
    if (is_sanitized && row.of_sanitizers) continue;
    CAPTURE(row.name);
    CHECK(tries(row.call) == killed);
  }
}

TEST_CASE("calls_that_the_server_does_not_need_are_refused") {
  const temporary_folder folder;
  const std::string path = folder.path_of("file");
  write_file(path, 0, pattern(4096));
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE((fd >= 0 && socket >= 0));
  struct {
    const char* name;
    std::function<long()> call;
    bool of_sanitizers = false;
  } const rows[] = {
      {"open", [&] { return ::open(path.c_str(), O_RDONLY); }, true},
      {"creat", [&] { return ::creat(folder.path_of("new").c_str(), 0600); }, true},
      {"open by /proc", [&] { return ::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY); },
       true},
      {"stat",
       [&] {
         struct stat facts {};
         return ::stat(path.c_str(), &facts);
       },
       true},
      {"unlink", [&] { return ::unlink(path.c_str()); }},
      {"rename", [&] { return ::rename(path.c_str(), folder.path_of("other").c_str()); }},
      {"chmod", [&] { return ::chmod(path.c_str(), 0777); }},
      {"fchmod", [&] { return ::fchmod(fd, 0777); }},
      {"ftruncate", [&] { return ::ftruncate(fd, 0); }},
      {"socket", [] { return ::socket(AF_INET, SOCK_STREAM, 0); }},
      {"connect",
       [&] {
         sockaddr any{};
         return ::connect(socket, &any, sizeof any);
       }},
      {"listen", [&] { return ::listen(socket, 1); }},
      {"fork", [] { return ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr); }, true},
      {"kill", [] { return ::kill(::getppid(), 0); }, true},
      {"setuid", [] { return ::setuid(0); }},
      {"capset", [] { return ::syscall(SYS_capset, nullptr, nullptr); }},
      {"seccomp", [] { return ::prctl(PR_SET_SECCOMP, 0, nullptr, 0, 0); }, true},
      {"dumpable", [] { return ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); }, true},
      {"terminal input", [&] { return ::ioctl(fd, TIOCSTI, ""); }},
      {"immutable",
       [&] {
         int flags = 0;
         return ::ioctl(fd, FS_IOC_SETFLAGS, &flags);
       }},
      {"leases", [&] { return ::fcntl(fd, F_SETLEASE, F_UNLCK); }, true},
      {"programs for sockets",
       [&] {
         sock_fprog none{};
         return ::setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &none, sizeof none);
       }},
      {"options of sockets that the server does not set",
       [&] {
         const linger reset{.l_onoff = 1, .l_linger = 0};
         return ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
       }},
      {"executable memory",
       [] {
         return ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
                    ? -1L
                    : 0L;
       },
       true},
      {"memory made executable",
       [] {
         void* const memory =
             ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return ::mprotect(memory, 4096, PROT_READ | PROT_EXEC);
       },
       true},
      {"a program in memory", [] { return ::memfd_create("x", 0); }},
      {"limits", [] { return ::nice(-1); }},
  };
  for (const auto& row : rows) {
    if (is_sanitized && row.of_sanitizers) continue;
    CAPTURE(row.name);
    CHECK(tries(row.call) == refused);
  }
  ::close(fd);
  ::close(socket);
}

TEST_CASE("threads_that_were_there_before_are_in_the_filter_too", "[loops]") {
  CHECK(in_child([] {
          std::atomic<int> step = 0;
          int seen = -1;
          std::thread early([&] {
            while (step == 0) std::this_thread::yield();
            seen = error_of(::socket(AF_INET, SOCK_STREAM, 0));
          });
          const bool entered = enters();
          step = 1;
          early.join();
          return entered ? seen : 255;
        }) == refused);
}

TEST_CASE("threads_can_be_started_afterwards_and_are_in_the_filter", "[loops]") {
  CHECK(in_child([] {
          if (!enters()) return 255;
          int seen = -1;
          std::thread late([&] { seen = error_of(::socket(AF_INET, SOCK_STREAM, 0)); });
          late.join();
          return seen;
        }) == refused);
}

TEST_CASE("a_file_that_is_open_can_be_used_in_every_way_that_storage_uses_it") {
  const temporary_folder folder;
  const std::string path = folder.path_of("file");
  make_sparse_file(path, 1 << 20);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  CHECK(in_child([&] {
          using storage::io_op;
          storage::offload_queue threads(0);
          storage::aio_queue queue(16, threads);
          if (!enters()) return 255;
          threads.add_threads(2);
          auto memory = std::make_unique<std::byte[]>(1 << 16);
          storage::extent_list found;
          int step = 1;
          for (const io_op op : {io_op::write, io_op::read, io_op::sync, io_op::buffered_write,
                                 io_op::buffered_read, io_op::zero_range, io_op::punch_hole, io_op::map}) {
            bool is_done = false;
            storage::io_request request;
            request.op = op;
            request.fd = fd;
            request.memory = memory.get();
            request.offset = 4096;
            request.length = 1 << 16;
            request.extents = &found;
            request.owner = &is_done;
            request.hook = [](storage::io_request& done) { *static_cast<bool*>(done.owner) = true; };
            queue.submit(request);
            while (!is_done) queue.drain();
            const bool is_known_to_all = op != io_op::zero_range && op != io_op::punch_hole;
            if (request.result < 0 && (is_known_to_all || request.result != -EOPNOTSUPP)) return step;
            ++step;
          }
          return in_order;
        }) == child_end{in_order, 0});
  ::close(fd);
}

TEST_CASE("memory_can_be_had_and_an_abort_is_an_abort") {
  CHECK(in_child([] {
          if (!enters()) return 255;
          auto memory = std::make_unique<char[]>(64 << 20);
          memory[12345] = 1;
          return memory[0] + 0;
        }) == child_end{in_order, 0});
  if (is_sanitized) return;
  CHECK(in_child([] {
          if (!enters()) return 255;
          std::abort();
        }) == child_end{-1, SIGABRT});
}

// As in a container that forbids them: here it is the first sandbox that does.
TEST_CASE("what_cannot_be_had_is_said_and_does_no_harm") {
  if (is_sanitized) return;  // whose filter lets prctl through
  CHECK(in_child([] {
          if (!enters()) return 255;
          const auto missing = server::enter_sandbox(std::nullopt);
          return static_cast<int>(missing.size());
        }) == child_end{5, 0});
}

TEST_CASE("no_capabilities_and_no_new_privileges_are_left") {
  CHECK(in_child([] {
          if (server::drop_bounding_capabilities() || server::drop_capabilities()) return 255;
          const std::string none(16, '0');
          int wrong = 0;
          for (const char* const set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
            if (status_line(set) != none) ++wrong;
          }
          if (::geteuid() == 0 && status_line("CapBnd") != none) wrong += 10;
          return wrong;
        }) == child_end{in_order, 0});
}

TEST_CASE("of_capabilities_those_that_are_kept_stay") {
  if (::geteuid() != 0) return;
  CHECK(in_child([] {
          if (server::drop_bounding_capabilities(0x2) || server::drop_capabilities(0x2)) return 255;
          const std::string one = "0000000000000002";  // CAP_DAC_OVERRIDE
          return status_line("CapEff") == one && status_line("CapPrm") == one && status_line("CapBnd") == one
                     ? 0
                     : 1;
        }) == child_end{in_order, 0});
}

TEST_CASE("who_became_another_user_cannot_go_back") {
  if (::geteuid() != 0) return;
  CHECK(in_child([] {
          constexpr uid_t nobody = 65534;
          const gid_t others[] = {1, 2};
          if (::setgroups(2, others) != 0) return 6;
          server::become(nobody, nobody);
          uid_t users[3];
          gid_t groups[3];
          if (::getresuid(&users[0], &users[1], &users[2]) != 0 ||
              ::getresgid(&groups[0], &groups[1], &groups[2]) != 0)
            return 1;
          for (const uid_t each : users) {
            if (each != nobody) return 2;
          }
          for (const gid_t each : groups) {
            if (each != nobody) return 3;
          }
          if (::getgroups(0, nullptr) != 0) return 4;
          if (::setuid(0) == 0 || ::setgid(0) == 0) return 5;
          return in_order;
        }) == child_end{in_order, 0});
}

TEST_CASE("landlock_alone_forbids_to_open_files_and_keeps_what_is_open") {
  const temporary_folder folder;
  const std::string path = folder.path_of("file");
  write_file(path, 0, pattern(16));
  const auto end = in_child([&] {
    const int open = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 255;
    const std::error_code failure = server::forbid_files_and_connections();
    if (failure == std::errc::function_not_supported || failure == std::errc::operation_not_supported)
      return EACCES;
    if (failure) return 254;
    char byte = 0;
    if (::pread(open, &byte, 1, 0) != 1) return 253;
    if (::unlink(path.c_str()) == 0 || ::creat(folder.path_of("new").c_str(), 0600) >= 0) return 252;
    return error_of(::open(path.c_str(), O_RDONLY));
  });
  CHECK(end == child_end{EACCES, 0});
}

TEST_CASE("the_file_keeper_opens_to_read_and_does_little_else") {
  const temporary_folder folder;
  const std::string path = folder.path_of("file");
  write_file(path, 0, pattern(16));
  const auto confined = [&](const std::function<long()>& call) {
    return in_child([&] {
      const auto missing = server::confine_file_keeper();
      return missing.empty() ? error_of(call()) : 255;
    });
  };
  CHECK(confined([&] { return ::open(path.c_str(), O_RDONLY); }) == child_end{in_order, 0});
  CHECK(confined([&] { return ::unlink(path.c_str()); }) == child_end{in_order, 0});
  CHECK(confined([] { return ::socket(AF_INET, SOCK_STREAM, 0); }) == refused);
  if (!is_sanitized) {
    write_file(path, 0, pattern(16));
    CHECK(confined([&] { return ::open(path.c_str(), O_RDWR); }) == refused);
    CHECK(confined([&] { return ::open(path.c_str(), O_RDONLY | O_TRUNC); }) == refused);
    CHECK(confined([&] { return ::creat(folder.path_of("new").c_str(), 0600); }) == refused);
  }
  CHECK(confined([&] { return ::chmod(folder.path_of("").c_str(), 0700); }) == refused);
  if (!is_sanitized) CHECK(confined([] { return ::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }) == refused);
  CHECK(confined([] { return ::syscall(SYS_execveat, 0, "", nullptr, nullptr, AT_EMPTY_PATH); }) == killed);
}
