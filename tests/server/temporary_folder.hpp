// A folder of the test's own, removed with everything in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/protocol/bytes.hpp"

namespace aionbd::tests {

class temporary_folder {
 public:
  enum class place {
    build,   // beside the tests, where files take direct I/O
    system,  // where the path is short enough for a Unix socket
  };

  explicit temporary_folder(place where = place::build);
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder();

  std::string path_of(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// A file of this size whose bytes are all zero and have no space yet.
void make_sparse_file(const std::string& path, std::uint64_t size);
void write_file(const std::string& path, std::uint64_t offset, const byte_vector& content);
[[nodiscard]] byte_vector read_file(const std::string& path, std::uint64_t offset, std::size_t length);

// Bytes that differ from place to place and from seed to seed.
[[nodiscard]] byte_vector pattern(std::size_t length, std::uint32_t seed = 1);

}  // namespace aionbd::tests
