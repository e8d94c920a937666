// What a block device is made of: plain values, filled in by block_file for a real file and by hand in tests.
#pragma once

#include <cstdint>

namespace aionbd::storage {

// The file from the block device's view:
//
//   0                                            direct_end        size
//   |<-- direct I/O, in units of `alignment` ------->|<-- buffered -->|
//
// A file whose size is no multiple of the alignment ends in a piece that direct I/O cannot write without
// growing the file. That piece, from its page's beginning on, is only ever touched through the page cache,
// and nothing else is, so no page is reached by both ways. Without direct I/O direct_end is 0.
struct geometry {
  std::uint64_t size = 0;        // bytes
  std::uint64_t direct_end = 0;  // bytes, a multiple of `alignment`
  std::uint32_t alignment = 1;   // bytes, of offset, length and memory of direct I/O; a power of two

  // What can be punched, zeroed or discarded as a whole; changing less would go through the page cache.
  std::uint32_t zeroing_granularity = 4096;  // bytes, a power of two, at least `alignment`
  std::uint32_t preferred_io = 4096;         // bytes, what requests are best a multiple of

  bool is_block_device = false;
  bool read_only = false;
  bool rotational = false;
  bool may_have_holes = false;
  bool can_punch_hole = false;  // deallocates, and reads as zeroes afterwards
  bool can_zero_range = false;  // zeroes without writing, stays allocated
  bool can_discard = false;
};

// Descriptors of the file, owned by whoever made them.
struct descriptors {
  int direct = -1;  // O_DIRECT; fallocate goes here too
  // For the end that direct I/O cannot write, and for syncs. The same as `direct` where there is no such end,
  // or no direct I/O.
  int buffered = -1;
};

}  // namespace aionbd::storage
