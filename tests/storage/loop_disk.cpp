#include "tests/storage/loop_disk.hpp"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace aionbd::storage {

loop_disk::loop_disk(const std::string& file, std::uint32_t block_size) {
  const file_descriptor control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  const file_descriptor below(::open(file.c_str(), O_RDWR | O_CLOEXEC));
  if (!control || !below) return;
  // Others may take the same free one before us.
  for (int attempt = 0; attempt < 20; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return;
    const std::string path = "/dev/loop" + std::to_string(number);
    file_descriptor disk(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!disk) return;
    loop_config wanted{};
    wanted.fd = static_cast<unsigned>(below.get());
    wanted.block_size = block_size;
    wanted.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (::ioctl(disk.get(), LOOP_CONFIGURE, &wanted) == 0) {
      disk_ = std::move(disk);
      path_ = path;
      return;
    }
    if (errno != EBUSY) return;
  }
}

}  // namespace aionbd::storage
