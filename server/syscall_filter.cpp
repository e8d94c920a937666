#include "server/syscall_filter.hpp"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string_view>

#include "server/sanitized.hpp"

namespace aionbd::server {

namespace {

using names = std::initializer_list<const char*>;
using numbers = std::initializer_list<unsigned>;

// Memory, locks, time, threads and the end: what the C library needs whatever a program does.
constexpr names common = {
    "brk",          "munmap",          "mremap",      "madvise",           "futex",          "futex_wait",
    "futex_wake",   "futex_waitv",     "sched_yield", "sched_getaffinity", "getcpu",         "clock_gettime",
    "clock_getres", "clock_nanosleep", "nanosleep",   "gettimeofday",      "time",           "getpid",
    "gettid",       "getrandom",       "sysinfo",     "rt_sigaction",      "rt_sigprocmask", "rt_sigreturn",
    "sigaltstack",  "restart_syscall", "exit",        "exit_group",        "read",           "readv",
    "write",        "writev",          "close",       "recvmsg",           "sendmsg"};

constexpr names for_server = {
    // Files that are open.
    "io_submit", "io_getevents", "io_pgetevents", "io_destroy", "pread64", "pwrite64", "preadv", "pwritev",
    "preadv2", "pwritev2", "lseek", "fdatasync", "fsync", "fallocate",
    // Clients.
    "accept", "accept4", "recvfrom", "sendto", "shutdown", "getsockname", "getpeername", "getsockopt",
    // Waiting. Old and new names of the same: which one there is depends on the processor and the C library.
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "poll", "ppoll", "timerfd_settime",
    "timerfd_gettime",
    // Threads.
    "set_robust_list", "rseq"};

constexpr names for_file_keeper = {"recvfrom",   "sendto", "fstat",  "lstat",
                                   "newfstatat", "statx",  "unlink", "unlinkat"};

// No fault of ours, of a library's or of the machine's leads to one of these.
constexpr names only_attackers = {
    "execve",       "execveat",        "ptrace",      "process_vm_readv", "process_vm_writev",
    "bpf",          "perf_event_open", "userfaultfd", "io_uring_setup",   "init_module",
    "finit_module", "delete_module",   "kexec_load",  "kexec_file_load",  "mount",
    "move_mount",   "fsopen",          "open_tree",   "pivot_root",       "chroot",
    "setns",        "unshare",         "reboot",      "swapon",           "add_key",
    "keyctl",       "request_key"};

// See sanitized.hpp.
constexpr names for_sanitizers = {"openat",     "open",        "readlink",
                                  "readlinkat", "fstat",       "lstat",
                                  "stat",       "newfstatat",  "statx",
                                  "access",     "faccessat",   "faccessat2",
                                  "getdents",   "getdents64",  "ptrace",
                                  "wait4",      "waitid",      "kill",
                                  "tkill",      "tgkill",      "clone",
                                  "prctl",      "pipe",        "pipe2",
                                  "prlimit64",  "getrlimit",   "getrusage",
                                  "uname",      "personality", "mincore",
                                  "mmap",       "mprotect",    "process_vm_readv",
                                  "getppid",    "getuid",      "geteuid",
                                  "getgid",     "getegid",     "set_tid_address",
                                  "arch_prctl", "dup",         "dup2",
                                  "fcntl",      "rseq",        "set_robust_list"};

constexpr std::uint64_t low_half = 0xFFFFFFFF;

// The kernel takes an int from the lower half of an argument, whatever is in the upper one.
constexpr scmp_arg_cmp is_int(unsigned argument, std::uint64_t value) {
  return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = low_half, .datum_b = value};
}

constexpr scmp_arg_cmp has_bits(unsigned argument, std::uint64_t mask, std::uint64_t value) {
  return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

class filter {
 public:
  // Of the rules, the first failure is kept.
  filter() : context_(::seccomp_init(SCMP_ACT_ERRNO(EPERM)), &::seccomp_release) {
    if (!context_) {
      failure_ = -ENOMEM;
      return;
    }
    set(SCMP_FLTATR_API_SYSRAWRC, 1);
    set(SCMP_FLTATR_CTL_TSYNC, 1);
    set(SCMP_FLTATR_CTL_NNP, 0);  // is set already; and who cannot set it may still be root
    set(SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    // The kernel would switch off speculation past stores, which slows everything down, for the sake of
    // programs that run others' code. This one runs none.
    set(SCMP_FLTATR_CTL_SSB, 1);
    set(SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a search tree; kernels before 5.11 run it at every call
  }

  void add(std::uint32_t action, const char* name, std::initializer_list<scmp_arg_cmp> when = {}) {
    if (failure_ != 0) return;
    const int number = ::seccomp_syscall_resolve_name(name);
    // Newer than the library, or of other processors only.
    if (number == __NR_SCMP_ERROR || number < 0) return;
    keep(::seccomp_rule_add_array(context_.get(), action, number, static_cast<unsigned>(when.size()),
                                  when.begin()));
  }
  void allow(const char* name, std::initializer_list<scmp_arg_cmp> when = {}) {
    add(SCMP_ACT_ALLOW, name, when);
  }
  void allow(const names& all) {
    for (const char* const name : all) allow(name);
  }

  std::error_code load() {
    if (failure_ == 0) failure_ = ::seccomp_load(context_.get());
    return {-failure_, std::system_category()};
  }

 private:
  void set(scmp_filter_attr attribute, std::uint32_t value) {
    keep(::seccomp_attr_set(context_.get(), attribute, value));
  }
  void keep(int result) {
    if (failure_ == 0) failure_ = result;
  }

  std::unique_ptr<void, void (*)(scmp_filter_ctx)> context_;
  int failure_ = 0;
};

// For reading only, and only what is there. As conditions on the flags of open and openat.
constexpr std::uint64_t changes_files = O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE;

// Memory is never made executable: no code comes in as data.
void allow_memory(filter& rules) {
  rules.allow("mmap", {has_bits(2, PROT_EXEC, 0)});
  rules.allow("mprotect", {has_bits(2, PROT_EXEC, 0)});
}

void allow_threads_but_no_processes(filter& rules) {
  rules.allow("clone", {has_bits(0, CLONE_THREAD, CLONE_THREAD)});
  // Its flags are in memory, where a filter cannot look. Told that there is no such call, the C library uses
  // clone.
  rules.add(SCMP_ACT_ERRNO(ENOSYS), "clone3");
  rules.allow("prctl", {is_int(0, PR_SET_NAME)});
  // abort() is a signal to the own thread.
  rules.allow("tgkill", {is_int(0, static_cast<std::uint64_t>(::getpid()))});
}

void allow_questions_to_files(filter& rules) {
  static constexpr numbers requests = {FS_IOC_FIEMAP, BLKDISCARD, FIONBIO, SIOCOUTQ};
  for (const unsigned request : requests) rules.allow("ioctl", {is_int(1, request)});
  static constexpr numbers commands = {F_GETFL, F_SETFL, F_GETFD, F_SETFD};
  for (const unsigned command : commands) rules.allow("fcntl", {is_int(1, command)});
}

void allow_socket_options(filter& rules) {
  static constexpr numbers of_all = {SO_KEEPALIVE, SO_SNDBUF};
  for (const unsigned option : of_all) rules.allow("setsockopt", {is_int(1, SOL_SOCKET), is_int(2, option)});
  static constexpr numbers of_tcp = {TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT};
  for (const unsigned option : of_tcp) rules.allow("setsockopt", {is_int(1, IPPROTO_TCP), is_int(2, option)});
}

}  // namespace

std::error_code filter_syscalls(filtered_role role) {
  filter rules;
  rules.allow(common);
  if constexpr (is_sanitized) {
    rules.allow(for_sanitizers);
  } else {
    allow_memory(rules);
  }
  if (role == filtered_role::file_keeper) {
    rules.allow(for_file_keeper);
    if (!is_sanitized) rules.allow("openat", {has_bits(2, changes_files, 0)});
  } else {
    rules.allow(for_server);
    allow_threads_but_no_processes(rules);
    allow_questions_to_files(rules);
    allow_socket_options(rules);
  }
  for (const char* const name : only_attackers) {
    if (!is_sanitized ||
        (name != std::string_view("ptrace") && name != std::string_view("process_vm_readv"))) {
      rules.add(SCMP_ACT_KILL_PROCESS, name);
    }
  }
  return rules.load();
}

}  // namespace aionbd::server
