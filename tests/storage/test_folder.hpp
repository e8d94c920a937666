// A folder of the test's own in the build directory, which is on a real file system, removed with all in it.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "storage/file_descriptor.hpp"

namespace aionbd::storage {

class test_folder {
 public:
  explicit test_folder(const std::string& inside = AIONBD_TEST_DIRECTORY)
      : path_(inside + "/storage-test-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("no folder can be made in " + inside);
  }
  test_folder(const test_folder&) = delete;
  test_folder& operator=(const test_folder&) = delete;
  ~test_folder() {
    std::error_code ignored;  // what is left over harms no other test
    std::filesystem::remove_all(path_, ignored);
  }

  std::string path_of(const std::string& name) const { return path_ + "/" + name; }
  bool is_empty() const { return std::filesystem::is_empty(path_); }

  // A file whose bytes are all zero and have no space yet; its path.
  std::string sparse_file(const std::string& name, std::uint64_t size) const {
    const file_descriptor file(::open(path_of(name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file || ::ftruncate(file.get(), static_cast<off_t>(size)) != 0) {
      throw std::runtime_error("no file can be made in " + path_);
    }
    return path_of(name);
  }

 private:
  std::string path_;
};

}  // namespace aionbd::storage
