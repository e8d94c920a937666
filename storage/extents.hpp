// Which parts of a file hold data, which are allocated but never written, which are holes: from the file
// system's own map, without reading the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <system_error>
#include <vector>

namespace aionbd::storage {

enum class extent_kind : std::uint8_t {
  data,       // may hold anything
  unwritten,  // has its space and reads as zeroes
  hole,       // has no space and reads as zeroes
};

struct extent {
  std::uint64_t length = 0;  // bytes, never 0
  extent_kind kind = extent_kind::data;

  friend bool operator==(const extent&, const extent&) = default;
};

// Consecutive extents from the beginning of the range that was asked for; neighbours differ in kind.
struct extent_list {
  std::vector<extent> items;
  std::size_t count_max = 1024;  // where to stop; what comes after is not known then

  std::uint64_t length() const;
  // Adds to the end, joining equal neighbours. False, with nothing added, when that would pass count_max.
  bool append(std::uint64_t length, extent_kind kind);
};

// Blocks while the file system looks it up, and until dirty pages of the file are written: a page that is not
// written yet can lie over an extent that still counts as unwritten. A file system or device that has no map
// says that all is data; a file that ends before the range does is an input/output error. Fills `found`, from
// `offset` on, with at most `length` bytes, at least one extent.
[[nodiscard]] std::error_code find_extents(int fd, std::uint64_t offset, std::uint64_t length,
                                           extent_list& found);

}  // namespace aionbd::storage
