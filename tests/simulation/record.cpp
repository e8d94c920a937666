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

constexpr std::uint64_t small = 6000, large = 256 * 1024 + 100;  // begin and end inside of blocks

// Some have room for holes, which reads leave out. It is the seed's to say, so that it is the same run again.
std::uint64_t length_for(std::uint64_t seed) {
  return seed % 8 == 0 ? large : small;
}

// Each run has a place of its own, so that nothing that a dead client left in flight is in the next one's
// way. The first is at the end of the image, which is reached in another way when its size is odd.
std::vector<arena> places(std::uint64_t from, std::uint64_t count, std::uint64_t size) {
  std::vector<arena> found;
  std::uint64_t end = 0;
  for (std::uint64_t seed = from; seed < from + count; ++seed) {
    const std::uint64_t length = length_for(seed);
    if (length > size - end) throw std::invalid_argument("the image is too small for so many runs");
    const bool is_first = found.empty();
    found.push_back({is_first ? size - length : end, length});
    if (is_first) {
      size -= length;
    } else {
      end += length;
    }
  }
  return found;
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
    const auto arenas = places(from, count, std::filesystem::file_size(image));
    for (std::uint64_t seed = from; seed < from + count; ++seed) {
      aionbd::tests::recorded_run run(seed, paths, image, arenas[seed - from]);
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
