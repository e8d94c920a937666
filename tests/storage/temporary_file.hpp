// A file for one test: in the build directory, which is on a real file system, and gone when the test ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace aionbd::storage {

class temporary_file {
 public:
  explicit temporary_file(std::uint64_t size);  // one large hole
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
  ~temporary_file();

  int direct() const { return direct_; }  // O_DIRECT, unless the file system has none
  int buffered() const { return buffered_; }

  std::vector<std::byte> content() const;  // as others see it
  std::uint64_t allocated() const;         // bytes

 private:
  std::uint64_t size_;
  int direct_ = -1;
  int buffered_ = -1;
};

}  // namespace aionbd::storage
