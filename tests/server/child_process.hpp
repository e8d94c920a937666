// Runs a piece of a test in a process of its own: for what a process cannot take back.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/support/catch.hpp"

namespace aionbd::tests {

struct child_end {
  int status = -1;  // what `work` returned; -1 if it did not come to that
  int signal = 0;   // what killed it
  friend bool operator==(const child_end&, const child_end&) = default;
};

// Checks have no place in `work`: it returns a number that says what it saw, from 0 to 255.
template <typename Work>
child_end in_child(Work work) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // Catch's handlers of signals would take what kills the child for an error of the test.
    const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
    (void)::setrlimit(RLIMIT_CORE, &no_core);
    for (const int each : {SIGSYS, SIGSEGV, SIGABRT, SIGTERM}) ::signal(each, SIG_DFL);
    ::_exit(work());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? child_end{-1, WTERMSIG(status)} : child_end{WEXITSTATUS(status), 0};
}

}  // namespace aionbd::tests
