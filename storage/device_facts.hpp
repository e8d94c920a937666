// What the system says about a file beyond stat: the alignment of direct I/O, the disk's queue in sysfs, the
// file system's name; its end as it is now. Reads only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace aionbd::storage {

// The alignment that direct I/O on this open O_DIRECT file needs, in bytes, for offset, length and memory:
// asked of the kernel where it answers (statx), else of the disk, else found by trying. nullopt: the file
// takes no direct I/O. The file is not empty.
[[nodiscard]] std::optional<std::uint32_t> direct_io_alignment(int fd, bool is_block_device);

// A number from /sys/dev/block/.../queue of the disk `device` is or is on; nullopt where there is none.
[[nodiscard]] std::optional<std::uint64_t> disk_queue_attribute(dev_t device, const std::string& name);

// The type of the file system that the open file is on ("ext4"), or "unknown".
[[nodiscard]] std::string file_system_name(int fd);

// Whether the open file, or disk, has come to end before `offset`. The size of a disk that was taken away is
// 0.
[[nodiscard]] bool ends_before(int fd, std::uint64_t offset);

}  // namespace aionbd::storage
