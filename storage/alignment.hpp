// Rounding to power-of-two alignments, and the aligned range around an unaligned one.
// Pure arithmetic on byte offsets: no memory, no files. The only place that masks low bits.
#pragma once

#include <cstdint>

namespace aionbd::storage {

constexpr bool is_power_of_two(std::uint64_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

// `alignment` is a power of two in all of these. Rounding up must not pass 2^64: file offsets end at 2^63.
constexpr std::uint64_t round_down(std::uint64_t value, std::uint64_t alignment) {
  return value & ~(alignment - 1);
}
constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) {
  return round_down(value + (alignment - 1), alignment);
}
constexpr bool is_aligned(std::uint64_t value, std::uint64_t alignment) {
  return (value & (alignment - 1)) == 0;
}

// A payload inside the smallest aligned range that holds it.
//
//   alignment 512, offset 700, length 900:
//
//     512        700                         1600   2048
//      |<- head ->|<-------- payload -------->|<tail>|
//      offset = 512, head = 188, payload = 900, tail = 448, length = 1536
//
// A buffer for the range is `length` bytes; the payload starts `head` bytes into it.
struct padded_range {
  std::uint64_t offset = 0;  // bytes, aligned
  std::uint64_t length = 0;  // bytes, aligned; head + payload + tail
  std::uint64_t head = 0;    // bytes before the payload
  std::uint64_t tail = 0;    // bytes after the payload

  constexpr bool is_exact() const { return head == 0 && tail == 0; }
  constexpr std::uint64_t end() const { return offset + length; }

  friend constexpr bool operator==(const padded_range&, const padded_range&) = default;
};

constexpr padded_range pad(std::uint64_t offset, std::uint64_t length, std::uint64_t alignment) {
  const std::uint64_t begin = round_down(offset, alignment);
  const std::uint64_t end = length == 0 ? begin : round_up(offset + length, alignment);
  if (length == 0) return {.offset = begin, .length = 0, .head = 0, .tail = 0};
  return {.offset = begin, .length = end - begin, .head = offset - begin, .tail = end - (offset + length)};
}

// The aligned part inside a range: what can be punched or discarded without touching a neighbour.
struct inner_range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;  // begin == end when no whole block lies inside
};

constexpr inner_range shrink(std::uint64_t offset, std::uint64_t length, std::uint64_t alignment) {
  const std::uint64_t begin = round_up(offset, alignment);
  const std::uint64_t end = round_down(offset + length, alignment);
  return begin < end ? inner_range{begin, end} : inner_range{begin, begin};
}

}  // namespace aionbd::storage
