#include "storage/image_lock.hpp"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <system_error>

namespace aionbd::storage {

namespace {

// QEMU gives each thing one can do to an image a bit. Who does it locks byte 100 + bit; who cannot stand
// others doing it locks byte 200 + bit. All locks are shared ones: they are there to be seen. Then each looks
// whether another process has locked the byte that contradicts its own.
constexpr off_t does_base = 100;
constexpr off_t forbids_base = 200;

enum bit : off_t { consistent_read = 0, write = 1, resize = 3 };

constexpr std::array forbidden_to_others = {write, resize};

constexpr struct flock one_byte(off_t at, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return lock;
}

// False when somebody has the byte to himself: a program with locks of another kind, on the whole file.
bool show(int fd, off_t at) {
  struct flock lock = one_byte(at, F_RDLCK);
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  throw std::system_error(errno, std::system_category(), "locking the image");
}

bool is_shown_by_another(int fd, off_t at) {
  struct flock lock = one_byte(at, F_WRLCK);
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0) {
    throw std::system_error(errno, std::system_category(), "looking at the image's locks");
  }
  return lock.l_type != F_UNLCK;
}

}  // namespace

bool lock_image(int fd, image_use use) {
  // Show first, look second: of two that come at once, at least one sees the other.
  if (!show(fd, does_base + consistent_read)) return false;
  if (use == image_use::write && !show(fd, does_base + write)) return false;
  for (const bit forbidden : forbidden_to_others) {
    if (!show(fd, forbids_base + forbidden)) return false;
  }

  for (const bit forbidden : forbidden_to_others) {
    if (is_shown_by_another(fd, does_base + forbidden)) return false;
  }
  if (is_shown_by_another(fd, forbids_base + consistent_read)) return false;
  return use != image_use::write || !is_shown_by_another(fd, forbids_base + write);
}

}  // namespace aionbd::storage
