// Remembers which regions of a sparse file are known to hold data throughout, so that reads there need not
// ask the file system for holes again.
//
// Only this one fact is kept because it can never be wrong in a way that matters: a region that was dense and
// was punched since is read from the disk, which returns the zeroes. What is a hole is never remembered: a
// write could have filled it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "storage/alignment.hpp"

namespace aionbd::storage {

// Any thread, any method.
class dense_regions {
 public:
  static constexpr std::uint64_t region_length_min = std::uint64_t{1} << 20;
  static constexpr std::uint64_t regions_max = std::uint64_t{1} << 24;  // 2 MiB of bits

  explicit dense_regions(std::uint64_t file_size) : file_size_(file_size) {
    while (file_size / region_length_ >= regions_max) region_length_ *= 2;
    words_ = std::vector<std::atomic<std::uint64_t>>(file_size / region_length_ / 64 + 1);
  }

  std::uint64_t region_length() const { return region_length_; }  // bytes, a power of two

  bool covers(std::uint64_t offset, std::uint64_t length) const {
    for (std::uint64_t i = offset / region_length_; i <= (offset + length - 1) / region_length_; ++i) {
      if ((words_[i / 64].load(std::memory_order_relaxed) & bit(i)) == 0) return false;
    }
    return true;
  }

  // The whole regions inside the range are dense. The piece of one at the end of the file is whole as well.
  void add(std::uint64_t offset, std::uint64_t length) {
    std::uint64_t end = offset + length;
    if (end == file_size_) end = round_up(end, region_length_);
    const inner_range whole = shrink(offset, end - offset, region_length_);
    for (std::uint64_t at = whole.begin; at < whole.end; at += region_length_) {
      words_[at / region_length_ / 64].fetch_or(bit(at / region_length_), std::memory_order_relaxed);
    }
  }

  // Parts of the range may be holes now: worth asking again.
  void forget(std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t i = offset / region_length_; i <= (offset + length - 1) / region_length_; ++i) {
      words_[i / 64].fetch_and(~bit(i), std::memory_order_relaxed);
    }
  }

 private:
  static std::uint64_t bit(std::uint64_t region) { return std::uint64_t{1} << (region % 64); }

  const std::uint64_t file_size_;
  std::uint64_t region_length_ = region_length_min;
  std::vector<std::atomic<std::uint64_t>> words_;
};

}  // namespace aionbd::storage
