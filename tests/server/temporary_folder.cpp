#include "tests/server/temporary_folder.hpp"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>

#include "tests/support/catch.hpp"

namespace aionbd::tests {

namespace {

class open_file {
 public:
  open_file(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    REQUIRE(fd_ >= 0);
  }
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;
  ~open_file() { ::close(fd_); }
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

temporary_folder::temporary_folder(place where) {
  path_ = where == place::build ? std::string(AIONBD_TEST_FOLDER)
                                : std::filesystem::temp_directory_path().string();
  path_ += "/aionbd-XXXXXX";
  REQUIRE(::mkdtemp(path_.data()) != nullptr);
}

temporary_folder::~temporary_folder() {
  std::error_code ignored;  // what cannot be removed is left; the next build's clean-up finds it
  std::filesystem::remove_all(path_, ignored);
}

void make_sparse_file(const std::string& path, std::uint64_t size) {
  const open_file file(path, O_RDWR | O_CREAT | O_EXCL);
  REQUIRE(::ftruncate(file.get(), static_cast<off_t>(size)) == 0);
}

void write_file(const std::string& path, std::uint64_t offset, const byte_vector& content) {
  const open_file file(path, O_RDWR | O_CREAT);
  REQUIRE(::pwrite(file.get(), content.data(), content.size(), static_cast<off_t>(offset)) ==
          static_cast<ssize_t>(content.size()));
}

byte_vector read_file(const std::string& path, std::uint64_t offset, std::size_t length) {
  const open_file file(path, O_RDONLY);
  byte_vector content(length);
  REQUIRE(::pread(file.get(), content.data(), length, static_cast<off_t>(offset)) ==
          static_cast<ssize_t>(length));
  return content;
}

byte_vector pattern(std::size_t length, std::uint32_t seed) {
  byte_vector bytes(length);
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::byte& each : bytes) {
    state = state * 1664525U + 1013904223U;
    each = static_cast<std::byte>(state >> 24U);
  }
  return bytes;
}

}  // namespace aionbd::tests
