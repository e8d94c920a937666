// Gives every file of the named directories to a fuzz target once. With it the corpus is a test for every
// compiler, not only for the one that has libFuzzer.
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, std::size_t length);

int main(int argc, char** argv) {
  const std::vector<std::filesystem::path> directories(argv + 1, argv + argc);
  std::size_t replayed = 0;
  for (const auto& directory : directories) {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
      const std::vector<unsigned char> bytes(text.begin(), text.end());
      std::cout << entry.path().filename().string()
                << std::endl;  // Flushed: a crash follows the file's name.
      LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
      ++replayed;
    }
  }
  std::cout << replayed << " files\n";
  return replayed > 0 ? 0 : 1;  // An empty corpus would prove nothing.
}
