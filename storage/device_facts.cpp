#include "storage/device_facts.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "storage/aligned_buffer.hpp"
#include "storage/alignment.hpp"

namespace aionbd::storage {

namespace {

constexpr std::uint32_t sector = 512;
constexpr std::uint32_t alignment_max = 65536;

std::string device_directory(dev_t device) {
  return "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
}

// What statx says; 0 when the kernel has the question but the file takes no direct I/O.
std::optional<std::uint32_t> ask_statx([[maybe_unused]] int fd) {
#ifdef STATX_DIOALIGN
  struct statx facts {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &facts) == 0 && (facts.stx_mask & STATX_DIOALIGN) != 0) {
    return std::max(facts.stx_dio_mem_align, facts.stx_dio_offset_align);
  }
#endif
  return std::nullopt;
}

// The smallest power of two that a read at the file's beginning takes. A hole takes anything, so this is a
// lower bound only.
std::optional<std::uint32_t> try_reads(int fd) {
  buffer_pool memory(0);
  const aligned_buffer buffer = memory.acquire(2 * alignment_max);
  for (std::uint32_t alignment = sector; alignment <= alignment_max; alignment *= 2) {
    // Aligned to this and to nothing larger.
    std::byte* const at = buffer.data() + (alignment < alignment_max ? alignment : 0);
    if (::pread(fd, at, alignment, 0) >= 0) return alignment;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::uint32_t> direct_io_alignment(int fd, bool is_block_device) {
  if (is_block_device) {
    int logical_block = 0;
    if (::ioctl(fd, BLKSSZGET, &logical_block) == 0) return static_cast<std::uint32_t>(logical_block);
  }
  if (const auto said = ask_statx(fd)) {
    if (*said == 0 || !is_power_of_two(*said)) return std::nullopt;
    return std::max(*said, sector);
  }
  const auto found = try_reads(fd);
  if (!found) return std::nullopt;
  struct stat facts {};
  if (::fstat(fd, &facts) != 0) return found;
  const auto disk = disk_queue_attribute(facts.st_dev, "logical_block_size").value_or(sector);
  return std::max(*found, static_cast<std::uint32_t>(disk));
}

std::optional<std::uint64_t> disk_queue_attribute(dev_t device, const std::string& name) {
  // A partition has no queue of its own: its disk is the directory above.
  for (const char* const queue : {"/queue/", "/../queue/"}) {
    std::ifstream file(device_directory(device) + queue + name);
    std::uint64_t value = 0;
    if (file >> value) return value;
  }
  return std::nullopt;
}

std::string file_system_name(int fd) {
  struct stat facts {};
  if (::fstat(fd, &facts) != 0) return "unknown";
  const std::string wanted = std::to_string(major(facts.st_dev)) + ":" + std::to_string(minor(facts.st_dev));

  // "36 35 98:0 /root /mount rw,noatime master:1 - ext4 /dev/root rw": the type follows the lone dash.
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string mount_id, parent, device, field, type;
    fields >> mount_id >> parent >> device;
    while (fields >> field && field != "-") continue;
    if (device == wanted && fields >> type) return type;
  }
  return "unknown";
}

bool ends_before(int fd, std::uint64_t offset) {
  const off_t end = ::lseek(fd, 0, SEEK_END);
  return end >= 0 && static_cast<std::uint64_t>(end) < offset;
}

}  // namespace aionbd::storage
