// Random runs on real servers, from the command line:
//
//   record FROM COUNT IMAGE SOCKET...   stops at the first seed that has no explanation
//
// IMAGE is the file that is served at the Unix sockets; its content is lost.
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/simulation/recorded_run.hpp"

namespace {

using aionbd::tests::arena;

constexpr std::uint64_t arena_length = 6000;  // begins and ends inside of blocks

// Each run has a place of its own, so that nothing that a dead client left in flight is in the next one's
// way. The first is at the end of the image, which is reached in another way when its size is odd.
arena place_of(std::uint64_t run, std::uint64_t size) {
  return {run == 0 ? size - arena_length : (run - 1) * arena_length, arena_length};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: record FROM COUNT IMAGE SOCKET...\n";
    return EXIT_FAILURE;
  }
  const std::uint64_t from = std::stoull(argv[1]), count = std::stoull(argv[2]);
  const std::string image = argv[3];
  const std::vector<std::string> paths(argv + 4, argv + argc);
  try {
    const std::uint64_t size = std::filesystem::file_size(image);
    if (size / arena_length < count) throw std::invalid_argument("the image is too small for so many runs");
    for (std::uint64_t seed = from; seed < from + count; ++seed) {
      aionbd::tests::recorded_run run(seed, paths, image, place_of(seed - from, size));
      const std::string complaint = run.go();
      if (complaint.empty()) continue;
      std::cout << "seed " << seed << ": " << complaint << "\nagain, if the machine does its part: record "
                << seed << " 1 " << image << " SOCKET..." << std::endl;
      return EXIT_FAILURE;
    }
  } catch (const std::exception& failure) {
    std::cout << failure.what() << std::endl;
    return EXIT_FAILURE;
  }
  std::cout << count << " runs from seed " << from << " on, all with an explanation" << std::endl;
  return EXIT_SUCCESS;
}
