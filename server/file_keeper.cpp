#include "server/file_keeper.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "server/sandbox.hpp"
#include "storage/last_error.hpp"

namespace aionbd::server {

namespace {

using storage::file_descriptor;
using storage::last_error;

constexpr unsigned descriptors_max = 1U << 20;

// One message with at most one descriptor beside it.
struct message {
  explicit message(void* bytes, std::size_t size) : piece{.iov_base = bytes, .iov_len = size} {
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
  }

  void attach(int fd) {
    cmsghdr* const at = CMSG_FIRSTHDR(&header);
    at->cmsg_level = SOL_SOCKET;
    at->cmsg_type = SCM_RIGHTS;
    at->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(at), &fd, sizeof fd);
  }

  file_descriptor attached() {
    const cmsghdr* const at = CMSG_FIRSTHDR(&header);
    if (at == nullptr || at->cmsg_type != SCM_RIGHTS) return {};
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(at), sizeof fd);
    return file_descriptor(fd);
  }

  iovec piece;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr header{};
};

// A signal, such as the SIGHUP that has files read again, may come while we wait for those of the one before.
template <typename Call>
ssize_t unless_interrupted(Call call) {
  ssize_t result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

// The child owns nothing of the server's: no image, whose lock would outlive the server, and no listening
// socket.
void close_all_but(int kept) {
  const auto below = static_cast<unsigned>(kept);
  if (::close_range(below + 1, ~0U, 0) == 0 && (below == 0 || ::close_range(0, below - 1, 0) == 0)) return;
  rlimit limit{};
  (void)::getrlimit(RLIMIT_NOFILE, &limit);
  const auto end = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, descriptors_max));
  for (int fd = 0; fd < end; ++fd) {
    if (fd != kept) ::close(fd);
  }
}

}  // namespace

file_keeper::~file_keeper() {
  // What a file system keeps is not waited for. It sees the end when it is back.
  if (!to_child_ || !is_back()) return;
  // The child sees the end, and the end of its end says that it has gone.
  ::shutdown(to_child_.get(), SHUT_WR);
  char nothing = 0;
  (void)::read(to_child_.get(), &nothing, 1);
}

void file_keeper::grant_reading(const std::string& path) {
  grants_.push_back({.what = right::read, .path = path});
}

void file_keeper::grant_removal(const std::string& path) {
  struct stat facts {};
  if (::lstat(path.c_str(), &facts) != 0) return;
  grants_.push_back({.what = right::remove, .path = path, .device = facts.st_dev, .inode = facts.st_ino});
}

void file_keeper::start(bool confined) {
  if (grants_.empty()) return;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    throw std::system_error(last_error(), "cannot connect to the file keeper");
  }
  file_descriptor mine(ends[0]);
  const file_descriptor others(ends[1]);
  const auto seconds = std::chrono::floor<std::chrono::seconds>(patience_);
  const timeval limit{.tv_sec = seconds.count(),
                      .tv_usec = std::chrono::microseconds(patience_ - seconds).count()};
  for (const int direction : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    (void)::setsockopt(mine.get(), SOL_SOCKET, direction, &limit, sizeof limit);
  }
  // What stops the server must not stop the child: the end of the connection does, once it is not needed any
  // more.
  sigset_t all{};
  sigset_t before{};
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &before);
  child_ = ::fork();
  if (child_ == 0) serve(others.get(), confined);
  const std::error_code failure = child_ < 0 ? last_error() : std::error_code();
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  if (failure) throw std::system_error(failure, "cannot start the file keeper");
  to_child_ = std::move(mine);
}

void file_keeper::serve(int server_end, bool confined) const {
  (void)::prctl(PR_SET_NAME, "aionbd-files", 0, 0, 0);
  close_all_but(server_end);
  // What is missing here is missing in the server too, which says so.
  if (confined) (void)confine_file_keeper();
  for (;;) {
    question asked{};
    const ssize_t received = ::recv(server_end, &asked, sizeof asked, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received != sizeof asked) ::_exit(0);
    answer(server_end, asked);
  }
}

void file_keeper::answer(int server_end, const question& asked) const {
  std::error_code failure = std::make_error_code(std::errc::permission_denied);
  file_descriptor opened;
  if (asked.index < grants_.size() && grants_[asked.index].what == asked.what) {
    failure.clear();
    opened = carry_out(grants_[asked.index], failure);
  }
  int error = failure.value();
  message reply(&error, sizeof error);
  if (opened) {
    reply.attach(opened.get());
  } else {
    reply.header.msg_controllen = 0;
  }
  (void)::sendmsg(server_end, &reply.header, MSG_NOSIGNAL);  // a server that has gone shows at the next recv
}

file_descriptor file_keeper::carry_out(const grant& granted, std::error_code& failure) {
  if (granted.what == right::read) {
    // A pipe in the file's place must not keep us waiting.
    file_descriptor opened(::open(granted.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!opened) failure = last_error();
    return opened;
  }
  struct stat facts {};
  if (::lstat(granted.path.c_str(), &facts) == 0 && facts.st_dev == granted.device &&
      facts.st_ino == granted.inode && ::unlink(granted.path.c_str()) != 0) {
    failure = last_error();
  }
  return {};
}

file_descriptor file_keeper::open(const std::string& path, std::error_code& failure) {
  return ask(right::read, path, failure);
}

std::error_code file_keeper::remove(const std::string& path) {
  std::error_code failure;
  (void)ask(right::remove, path, failure);
  return failure;
}

file_descriptor file_keeper::ask(right what, const std::string& path, std::error_code& failure) {
  failure.clear();
  const auto at = std::find_if(grants_.begin(), grants_.end(),
                               [&](const grant& each) { return each.what == what && each.path == path; });
  if (at == grants_.end()) {
    failure = std::make_error_code(std::errc::permission_denied);
    return {};
  }
  if (child_ < 0) return carry_out(*at, failure);
  return ask_child({.what = what, .index = static_cast<std::uint32_t>(at - grants_.begin())}, failure);
}

// At most one question is under way, so an answer can only be the one to it.
file_descriptor file_keeper::ask_child(const question& asked, std::error_code& failure) {
  const std::lock_guard guard(mutex_);
  if (!is_back()) {
    failure = std::make_error_code(std::errc::timed_out);
    return {};
  }
  const auto send = [&] { return ::send(to_child_.get(), &asked, sizeof asked, MSG_NOSIGNAL); };
  if (unless_interrupted(send) != sizeof asked) {
    failure = std::make_error_code(std::errc::io_error);
    return {};
  }
  file_descriptor opened = receive_answer(0, failure);
  // It was sent, but this process has no room for one more.
  if (!failure && asked.what == right::read && !opened) {
    failure = std::make_error_code(std::errc::too_many_files_open);
  }
  return opened;
}

// Without an answer a file system keeps the child, or it has been killed.
file_descriptor file_keeper::receive_answer(int flags, std::error_code& failure) {
  int error = 0;
  message reply(&error, sizeof error);
  const auto receive = [&] { return ::recvmsg(to_child_.get(), &reply.header, MSG_CMSG_CLOEXEC | flags); };
  const ssize_t received = unless_interrupted(receive);
  is_answer_owed_ = received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  if (received == sizeof error) {
    failure.assign(error, std::system_category());
    return reply.attached();
  }
  failure = std::make_error_code(is_answer_owed_ ? std::errc::timed_out : std::errc::io_error);
  return {};
}

// From a question that took too long: its answer, which nobody wants any more, has come.
bool file_keeper::is_back() {
  std::error_code unwanted;
  if (is_answer_owed_) (void)receive_answer(MSG_DONTWAIT, unwanted);
  return !is_answer_owed_;
}

}  // namespace aionbd::server
