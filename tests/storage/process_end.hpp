// Whether a piece of code ends the process with abort(): it is run in a child.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

namespace aionbd::storage {

template <typename Code>
bool aborts(Code code) {
  const pid_t child = ::fork();
  if (child == 0) {
    // The test framework reports signals, and the kernel keeps cores; neither is wanted here.
    const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
    (void)::setrlimit(RLIMIT_CORE, &no_core);
    (void)std::signal(SIGABRT, SIG_DFL);
    (void)::close(STDERR_FILENO);
    code();
    ::_exit(0);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

}  // namespace aionbd::storage
