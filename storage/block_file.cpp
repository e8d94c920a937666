#include "storage/block_file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "storage/alignment.hpp"
#include "storage/device_facts.hpp"
#include "storage/image_lock.hpp"

namespace aionbd::storage {

namespace {

using reason = open_error::reason;

constexpr std::uint32_t page = 4096;
constexpr std::uint32_t granularity_max = 65536;  // Linux has no larger blocks or pages
constexpr mode_t only_the_owner = 0600;

// What of a file is in the page cache together, or not at all: a page, or where those are larger, a block.
std::uint32_t cached_unit(int fd) {
  struct statfs system {};
  const long block = ::fstatfs(fd, &system) == 0 ? static_cast<long>(system.f_bsize) : 0;
  const long larger = std::clamp<long>(std::max(block, ::sysconf(_SC_PAGESIZE)), page, granularity_max);
  return std::bit_ceil(static_cast<std::uint32_t>(larger));
}

std::string system_says(int error) {
  return std::system_category().message(error);
}

[[noreturn]] void refuse(const std::string& path, const std::string& doing, int error) {
  throw open_error(reason::refused, doing + " " + path + ": " + system_says(error));
}

void fill_new_file(int fd, const block_file::request& wanted) {
  const auto size = static_cast<off_t>(*wanted.create_size);
  if (::ftruncate(fd, size) != 0) refuse(wanted.path, "cannot set the size of", errno);
  if (!wanted.preallocate) return;
  if (::fallocate(fd, 0, 0, size) != 0) refuse(wanted.path, "cannot allocate the space of", errno);
}

bool has_name(const std::string& path) {
  struct stat facts {};
  return ::lstat(path.c_str(), &facts) == 0;
}

// Else a power cut may take the name away, and with it all that was flushed.
void make_durable(const block_file::request& wanted, int fd, const std::string& folder) {
  const file_descriptor place(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (place && ::fsync(place.get()) == 0) return;
  if (place && errno != EINVAL) refuse(wanted.path, "cannot sync", errno);
  // Who may not read the folder may still make a file in it, and there are file systems that sync no folders;
  // most keep both together.
  if (::fsync(fd) != 0) refuse(wanted.path, "cannot sync", errno);
}

// For file systems that know no files without a name. Who is interrupted leaves a file of no use behind.
bool create_by_name(const block_file::request& wanted, const std::string& folder) {
  const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
  const file_descriptor fresh(::open(wanted.path.c_str(), flags, only_the_owner));
  if (!fresh && errno == EEXIST) return false;
  if (!fresh) refuse(wanted.path, "cannot create", errno);
  undo_creation undo(wanted.path);
  fill_new_file(fresh.get(), wanted);
  make_durable(wanted, fresh.get(), folder);
  undo.keep();
  return true;
}

enum class creation { made, was_there, cannot_be_nameless };

// It gets its name last, so that it is never seen half made, whoever is interrupted.
creation create_nameless(const block_file::request& wanted, const std::string& folder) {
  const file_descriptor fresh(::open(folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, only_the_owner));
  if (!fresh && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
    return creation::cannot_be_nameless;
  }
  if (!fresh) refuse(wanted.path, "cannot create", errno);
  fill_new_file(fresh.get(), wanted);
  if (::fsync(fresh.get()) != 0) refuse(wanted.path, "cannot sync", errno);
  const std::string nameless = "/proc/self/fd/" + std::to_string(fresh.get());
  if (::linkat(AT_FDCWD, nameless.c_str(), AT_FDCWD, wanted.path.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    if (errno == EEXIST) return creation::was_there;  // somebody else was quicker
    // There may be no /proc. Or no way into the folder, which will show again.
    if (errno == ENOENT) return creation::cannot_be_nameless;
    refuse(wanted.path, "cannot create", errno);
  }
  undo_creation undo(wanted.path);
  make_durable(wanted, fresh.get(), folder);
  undo.keep();
  return creation::made;
}

// True if the file was not there and is now.
bool create_if_missing(const block_file::request& wanted) {
  if (!wanted.create_size || has_name(wanted.path)) return false;
  std::string folder = std::filesystem::path(wanted.path).parent_path();
  if (folder.empty()) folder = ".";
  const creation nameless = create_nameless(wanted, folder);
  // By now the space of the nameless one is free again.
  if (nameless == creation::cannot_be_nameless) return create_by_name(wanted, folder);
  return nameless == creation::made;
}

bool is_same_file(int one, int other) {
  struct stat facts {
  }, others{};
  return ::fstat(one, &facts) == 0 && ::fstat(other, &others) == 0 && facts.st_dev == others.st_dev &&
         facts.st_ino == others.st_ino;
}

// Looks before opening: to open a pipe would wait, and to open a tape would rewind it.
struct stat look_at(const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0) {
    if (errno == ENOENT) throw open_error(reason::missing, path + " does not exist");
    refuse(path, "cannot stat", errno);
  }
  if (S_ISREG(facts.st_mode) || S_ISBLK(facts.st_mode)) return facts;
  const char* const kind = S_ISDIR(facts.st_mode)    ? "a directory"
                           : S_ISFIFO(facts.st_mode) ? "a pipe"
                           : S_ISCHR(facts.st_mode)  ? "a character device"
                           : S_ISSOCK(facts.st_mode) ? "a socket"
                                                     : "something else";
  throw open_error(reason::wrong_kind,
                   path + " is " + kind + "; only regular files and block devices can be served");
}

}  // namespace

undo_creation::~undo_creation() {
  if (path_ != nullptr) ::unlink(path_->c_str());
}

block_file block_file::open(const request& wanted) {
  block_file file;
  file.path_ = wanted.path;
  file.direct_ = wanted.direct;
  file.created_ = create_if_missing(wanted);
  undo_creation undo(wanted.path);
  if (!file.created_) undo.keep();

  file.shape_.is_block_device = S_ISBLK(look_at(wanted.path).st_mode);
  file.shape_.read_only = wanted.read_only;
  file.open_descriptors(wanted);
  if (!file.lock(wanted)) {
    // Whoever was quicker to lock the file that we made serves it now: it is not ours to take away.
    undo.keep();
    throw open_error(
        reason::in_use,
        wanted.path + (wanted.read_only ? " is open for writing by another process"
                                        : " is locked by another process; writing needs it exclusively"));
  }
  file.measure(wanted);
  file.find_alignment();
  file.find_abilities();
  undo.keep();
  return file;
}

void block_file::open_descriptors(const request& wanted) {
  const int access = (wanted.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  // A writable block device is claimed: the system then refuses to mount it, and us if it is mounted.
  const int claim = shape_.is_block_device && !wanted.read_only ? O_EXCL : 0;
  main_ = file_descriptor(::open(wanted.path.c_str(), access | claim | (wanted.direct ? O_DIRECT : 0)));
  if (main_) return;
  const int error = errno;
  if (error == EBUSY) {
    throw open_error(reason::in_use,
                     wanted.path + " is in use by the system (mounted, or part of an array?)");
  }
  if (error == EINVAL && wanted.direct) {
    const file_descriptor plain(::open(wanted.path.c_str(), O_RDONLY | O_CLOEXEC));
    const std::string system = plain ? file_system_name(plain.get()) : "unknown";
    throw open_error(reason::no_direct_io, wanted.path + " is on a file system (" + system +
                                               ") that refuses direct I/O (O_DIRECT)");
  }
  refuse(wanted.path, wanted.read_only ? "cannot open" : "cannot open for writing", error);
}

bool block_file::lock(const request& wanted) const {
  try {
    return lock_image(main_.get(), wanted.read_only ? image_use::read : image_use::write);
  } catch (const std::system_error& error) {
    refuse(wanted.path, "cannot lock", error.code().value());
  }
}

void block_file::measure(const request& wanted) {
  struct stat facts {};
  if (::fstat(main_.get(), &facts) != 0) refuse(wanted.path, "cannot stat", errno);
  shape_.size = static_cast<std::uint64_t>(facts.st_size);
  dev_t disk = facts.st_dev;
  if (shape_.is_block_device) {
    disk = facts.st_rdev;
    if (::ioctl(main_.get(), BLKGETSIZE64, &shape_.size) != 0)
      refuse(wanted.path, "cannot ask the size of", errno);
  }
  if (shape_.size == 0) throw open_error(reason::empty, wanted.path + " is empty: there is nothing to serve");

  const auto best =
      static_cast<std::uint32_t>(std::clamp<blksize_t>(facts.st_blksize, page, granularity_max));
  shape_.preferred_io = std::bit_floor(best);
  shape_.rotational = disk_queue_attribute(disk, "rotational").value_or(0) != 0;
  // Space that was allocated and never written does not show here; asking for it at every read would cost
  // more than it saves. st_blocks counts 512 bytes, whatever the disk's blocks.
  shape_.may_have_holes =
      !shape_.is_block_device && static_cast<std::uint64_t>(facts.st_blocks) * 512 < shape_.size;
  if (shape_.is_block_device && !shape_.read_only) {
    shape_.can_discard = disk_queue_attribute(disk, "discard_max_bytes").value_or(0) != 0;
    // Without the disk's help the kernel would write zeroes; then we do so ourselves, asynchronously.
    shape_.can_punch_hole = shape_.can_zero_range =
        disk_queue_attribute(disk, "write_zeroes_max_bytes").value_or(0) != 0;
  }
}

void block_file::find_alignment() {
  if (!direct_) return;  // alignment 1, direct_end 0
  const auto alignment = direct_io_alignment(main_.get(), shape_.is_block_device);
  if (!alignment) {
    throw open_error(reason::no_direct_io, path_ + " is on a file system (" + file_system_name(main_.get()) +
                                               ") that refuses direct I/O");
  }
  shape_.alignment = *alignment;
  shape_.direct_end = shape_.size;
  if (is_aligned(shape_.size, shape_.alignment)) return;

  shape_.direct_end = round_down(shape_.size, std::max(shape_.alignment, cached_unit(main_.get())));
  const int access = (shape_.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  // By way of /proc, if there is one: the same file, even if the path has come to mean another.
  const std::string same = "/proc/self/fd/" + std::to_string(main_.get());
  buffered_ = file_descriptor(::open(same.c_str(), access));
  if (!buffered_ && errno == ENOENT) buffered_ = file_descriptor(::open(path_.c_str(), access));
  if (!buffered_) refuse(path_, "cannot open a second time", errno);
  if (!is_same_file(main_.get(), buffered_.get())) refuse(path_, "cannot open a second time", ESTALE);
  // No read-ahead: it would bring pages into the cache that belong to direct I/O.
  (void)::posix_fadvise(buffered_.get(), 0, 0, POSIX_FADV_RANDOM);
}

void block_file::find_abilities() {
  const std::uint32_t unit = shape_.is_block_device ? page : cached_unit(main_.get());
  shape_.zeroing_granularity = std::max(unit, shape_.alignment);

  if (shape_.is_block_device || shape_.read_only) return;
  // Whether the file system can do either shows at the first attempt: there is none that does not change at
  // least the file's times.
  shape_.can_punch_hole = shape_.can_zero_range = true;
}

}  // namespace aionbd::storage
