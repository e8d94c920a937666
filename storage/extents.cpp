#include "storage/extents.hpp"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>

#include "storage/last_error.hpp"

namespace aionbd::storage {

namespace {

constexpr std::size_t extents_per_call = 512;

bool has_no_map(int error) {
  return error == EOPNOTSUPP || error == ENOTTY || error == EINVAL || error == ENOSYS;
}

// The kernel's answer: a header with its extents behind it.
class extent_map {
 public:
  // Makes room for so many extents.
  explicit extent_map(std::uint32_t count_max)
      : count_max_(count_max),
        memory_(std::make_unique<std::byte[]>(sizeof(fiemap) + count_max * sizeof(fiemap_extent))),
        map_(new (memory_.get()) fiemap) {}

  // False with errno set when the file system has no such map.
  bool ask(int fd, std::uint64_t offset, std::uint64_t length) {
    std::memset(map_, 0, sizeof *map_);
    map_->fm_start = offset;
    map_->fm_length = length;
    map_->fm_flags = FIEMAP_FLAG_SYNC;
    map_->fm_extent_count = count_max_;
    return ::ioctl(fd, FS_IOC_FIEMAP, map_) == 0;
  }
  bool is_full() const { return count() == count_max_; }
  std::uint32_t count() const { return map_->fm_mapped_extents; }
  const fiemap_extent& operator[](std::uint32_t index) const { return map_->fm_extents[index]; }

 private:
  std::uint32_t count_max_;
  std::unique_ptr<std::byte[]> memory_;
  fiemap* map_;
};

extent_kind kind_of(const fiemap_extent& mapped) {
  // Whatever is out of the ordinary (not yet placed, inline, compressed) is data.
  constexpr std::uint32_t oddities =
      FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_NOT_ALIGNED;
  const bool unwritten =
      (mapped.fe_flags & FIEMAP_EXTENT_UNWRITTEN) != 0 && (mapped.fe_flags & oddities) == 0;
  return unwritten ? extent_kind::unwritten : extent_kind::data;
}

std::error_code find_by_map(int fd, std::uint64_t offset, std::uint64_t end, extent_list& found) {
  // Of a short list, the kernel need not find more than fits.
  extent_map map(static_cast<std::uint32_t>(std::clamp<std::size_t>(found.count_max, 1, extents_per_call)));
  std::uint64_t at = offset;
  while (at < end) {
    if (!map.ask(fd, at, end - at)) return last_error();
    for (std::uint32_t i = 0; i < map.count(); ++i) {
      const std::uint64_t begin = std::clamp<std::uint64_t>(map[i].fe_logical, at, end);
      const std::uint64_t past = std::clamp<std::uint64_t>(map[i].fe_logical + map[i].fe_length, begin, end);
      if (!found.append(begin - at, extent_kind::hole)) return {};
      if (!found.append(past - begin, kind_of(map[i]))) return {};
      at = past;
    }
    // Fewer than there was room for: nothing but a hole is left.
    if (!map.is_full()) break;
  }
  found.append(end - at, extent_kind::hole);
  return {};
}

std::error_code find_by_seeking(int fd, std::uint64_t offset, std::uint64_t end, extent_list& found) {
  std::uint64_t at = offset;
  while (at < end) {
    const off_t data = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno != ENXIO) return last_error();
    const std::uint64_t data_begin = data < 0 ? end : std::min(static_cast<std::uint64_t>(data), end);
    if (data_begin < at) return make_error_code(std::errc::invalid_argument);  // no answer to the question
    if (!found.append(data_begin - at, extent_kind::hole)) return {};
    if (data_begin == end) return {};
    const off_t hole = ::lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return last_error();
    // What was data a moment ago is being punched, or neither answer means anything. Data is always true.
    const std::uint64_t data_end = hole <= data ? end : std::min(static_cast<std::uint64_t>(hole), end);
    if (!found.append(data_end - data_begin, extent_kind::data)) return {};
    at = data_end;
  }
  return {};
}

// A file that was cut off underneath ends before what is asked for. To a map that is a hole, but nothing can
// be read there. What is data is told as such, and reading it will show.
bool is_cut_off(int fd, std::uint64_t offset, const extent_list& found) {
  if (found.items.empty() || found.items.back().kind == extent_kind::data) return false;
  const off_t size = ::lseek(fd, 0, SEEK_END);
  return size >= 0 && static_cast<std::uint64_t>(size) < offset + found.length();
}

std::error_code find_any_way(int fd, std::uint64_t offset, std::uint64_t length, extent_list& found) {
  const std::uint64_t end = offset + length;
  found.items.clear();
  std::error_code failure = find_by_map(fd, offset, end, found);
  if (!failure || !has_no_map(failure.value())) return failure;
  found.items.clear();
  failure = find_by_seeking(fd, offset, end, found);
  if (!failure || !has_no_map(failure.value())) return failure;
  found.items.clear();
  found.append(length, extent_kind::data);
  return {};
}

}  // namespace

std::uint64_t extent_list::length() const {
  std::uint64_t sum = 0;
  for (const extent& item : items) sum += item.length;
  return sum;
}

bool extent_list::append(std::uint64_t length, extent_kind kind) {
  if (length == 0) return true;
  if (!items.empty() && items.back().kind == kind) {
    items.back().length += length;
    return true;
  }
  if (items.size() >= count_max) return false;
  items.push_back({.length = length, .kind = kind});
  return true;
}

std::error_code find_extents(int fd, std::uint64_t offset, std::uint64_t length, extent_list& found) {
  const std::error_code failure = find_any_way(fd, offset, length, found);
  if (!failure && is_cut_off(fd, offset, found)) return std::make_error_code(std::errc::io_error);
  return failure;
}

}  // namespace aionbd::storage
