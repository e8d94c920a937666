// Random runs from the command line:
//
//   simulate SEED           one run, and what it came to
//   simulate FROM COUNT     many; stops at the first that has no explanation, and says how to have it again
//
// A run that ends the process, or does not end, leaves its seed behind as well.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>

#include "tests/simulation/random_run.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

// A run takes milliseconds; on a busy machine, with a sanitizer, a second.
constexpr unsigned patience_s = 60;

constinit std::uint64_t current_seed = 0;

// As a signal's handler may.
void write_seed() {
  std::array<char, 64> line{};
  constexpr std::string_view before = "\nit was the run of seed ";
  char* end = line.begin() + before.copy(line.data(), before.size());
  end = std::to_chars(end, line.end() - 1, current_seed).ptr;
  *end++ = '\n';
  [[maybe_unused]] const auto written =
      ::write(STDERR_FILENO, line.data(), static_cast<std::size_t>(end - line.data()));
}

// What the signal did before, it does now.
void write_seed_and_end(int signal) {
  write_seed();
  ::raise(signal);
}

void leave_the_seed_behind() {
  struct sigaction action {};
  action.sa_handler = &write_seed_and_end;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int each : {SIGABRT, SIGALRM, SIGTERM, SIGINT}) ::sigaction(each, &action, nullptr);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_set_death_callback(&write_seed);
#else
  for (const int each : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) ::sigaction(each, &action, nullptr);
#endif
}

// Empty, or what was wrong.
std::string outcome_of(std::uint64_t seed) {
  current_seed = seed;
  ::alarm(patience_s);
  aionbd::tests::random_run run(seed);
  try {
    return run.go();
  } catch (const std::exception& failure) {
    // A server that is taken down in the middle of everything ends the process.
    std::cerr << "exception: " << failure.what() << std::endl;
    throw;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::cerr << "usage: simulate FROM [COUNT]\n";
    return EXIT_FAILURE;
  }
  spdlog::set_level(spdlog::level::off);
  leave_the_seed_behind();
  const std::uint64_t from = std::stoull(argv[1]), count = argc == 3 ? std::stoull(argv[2]) : 1;
  for (std::uint64_t seed = from; seed < from + count; ++seed) {
    const std::string complaint = outcome_of(seed);
    if (complaint.empty()) continue;
    std::cout << "seed " << seed << ": " << complaint << "\nagain: " << argv[0] << ' ' << seed << std::endl;
    return EXIT_FAILURE;
  }
  std::cout << count << " runs from seed " << from << " on, all with an explanation\n";
  return EXIT_SUCCESS;
}
