// A block device over a file, where the system has loop devices and we may use them.
#pragma once

#include <cstdint>
#include <string>

#include "storage/file_descriptor.hpp"

namespace aionbd::storage {

class loop_disk {
 public:
  // Over the file, in blocks of this many bytes. The system's is gone as soon as nobody has it open.
  loop_disk(const std::string& file, std::uint32_t block_size);

  explicit operator bool() const { return bool(disk_); }  // false: no such thing here
  const std::string& path() const { return path_; }
  int fd() const { return disk_.get(); }

 private:
  file_descriptor disk_;
  std::string path_;
};

}  // namespace aionbd::storage
