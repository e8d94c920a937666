// Random runs from the command line:
//
//   simulate SEED           one run, and what it came to
//   simulate FROM COUNT     many; stops at the first that has no explanation, and says how to have it again
#include <spdlog/spdlog.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

#include "tests/simulation/random_run.hpp"

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::cerr << "usage: simulate FROM [COUNT]\n";
    return EXIT_FAILURE;
  }
  spdlog::set_level(spdlog::level::off);
  const std::uint64_t from = std::stoull(argv[1]), count = argc == 3 ? std::stoull(argv[2]) : 1;
  for (std::uint64_t seed = from; seed < from + count; ++seed) {
    aionbd::tests::random_run run(seed);
    const std::string complaint = run.go();
    if (complaint.empty()) continue;
    std::cout << "seed " << seed << ": " << complaint << "\nagain: " << argv[0] << ' ' << seed << std::endl;
    return EXIT_FAILURE;
  }
  std::cout << count << " runs from seed " << from << " on, all with an explanation\n";
  return EXIT_SUCCESS;
}
