#include "tests/storage/temporary_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

#include "tests/support/catch.hpp"

namespace aionbd::storage {

namespace {

int checked(int result) {
  if (result < 0) throw std::system_error(errno, std::system_category(), "temporary file");
  return result;
}

}  // namespace

temporary_file::temporary_file(std::uint64_t size) : size_(size) {
  std::string path = AIONBD_TEST_DIRECTORY "/storage-test-file-XXXXXX";
  buffered_ = checked(::mkostemp(path.data(), O_CLOEXEC));
  direct_ = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  if (direct_ < 0 && errno == EINVAL) {
    WARN("no O_DIRECT here: the queue is tested on buffered I/O");
    direct_ = checked(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  }
  checked(direct_);
  checked(::unlink(path.c_str()));
  checked(::ftruncate(buffered_, static_cast<off_t>(size)));
}

temporary_file::~temporary_file() {
  (void)::close(direct_);  // gone already: nothing to lose
  (void)::close(buffered_);
}

std::vector<std::byte> temporary_file::content() const {
  std::vector<std::byte> bytes(size_);
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count =
        ::pread(buffered_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (checked(static_cast<int>(count)) == 0) break;
    done += static_cast<std::size_t>(count);
  }
  return bytes;
}

std::uint64_t temporary_file::allocated() const {
  struct stat facts {};
  checked(::fstat(buffered_, &facts));
  return static_cast<std::uint64_t>(facts.st_blocks) * 512;
}

}  // namespace aionbd::storage
