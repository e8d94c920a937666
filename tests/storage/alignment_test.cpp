#include "storage/alignment.hpp"

#include <cstdint>
#include <limits>

#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr std::uint64_t naive_down(std::uint64_t value, std::uint64_t alignment) {
  return value / alignment * alignment;
}

// The smallest run of whole blocks around a range, found by looking at every block.
padded_range naive_pad(std::uint64_t offset, std::uint64_t length, std::uint64_t alignment) {
  std::uint64_t begin = naive_down(offset, alignment);
  std::uint64_t end = begin;
  while (length != 0 && end < offset + length) end += alignment;
  if (length == 0) return {.offset = begin, .length = 0, .head = 0, .tail = 0};
  return {.offset = begin, .length = end - begin, .head = offset - begin, .tail = end - offset - length};
}

// The whole blocks inside a range: how many, and the first.
struct blocks_inside {
  std::uint64_t first = 0;
  std::uint64_t length = 0;
};
blocks_inside naive_shrink(std::uint64_t offset, std::uint64_t length, std::uint64_t alignment) {
  blocks_inside found;
  for (std::uint64_t block = 0; block + alignment <= offset + length; block += alignment) {
    if (block < offset) continue;
    if (found.length == 0) found.first = block;
    found.length += alignment;
  }
  return found;
}

}  // namespace

TEST_CASE("powers_of_two_are_told_from_other_numbers") {
  CHECK_FALSE(is_power_of_two(0));
  CHECK(is_power_of_two(1));
  CHECK(is_power_of_two(4096));
  CHECK(is_power_of_two(std::uint64_t{1} << 63));
  CHECK_FALSE(is_power_of_two(3));
  CHECK_FALSE(is_power_of_two(4095));
  CHECK_FALSE(is_power_of_two(std::numeric_limits<std::uint64_t>::max()));
}

TEST_CASE("rounding_agrees_with_division_for_every_small_value") {
  for (const std::uint64_t alignment : {1U, 2U, 8U, 64U, 512U}) {
    for (std::uint64_t value = 0; value <= 4 * alignment; ++value) {
      CAPTURE(alignment, value);
      REQUIRE(round_down(value, alignment) == naive_down(value, alignment));
      REQUIRE(round_up(value, alignment) == naive_down(value + alignment - 1, alignment));
      REQUIRE(is_aligned(value, alignment) == (value % alignment == 0));
    }
  }
}

TEST_CASE("padding_agrees_with_a_naive_model_for_every_offset_and_length") {
  for (const std::uint64_t alignment : {1U, 2U, 8U, 32U, 64U}) {
    for (std::uint64_t offset = 0; offset <= 4 * alignment; ++offset) {
      for (std::uint64_t length = 0; length <= 4 * alignment; ++length) {
        const padded_range found = pad(offset, length, alignment);
        if (found == naive_pad(offset, length, alignment)) continue;
        CAPTURE(alignment, offset, length);
        FAIL();
      }
    }
  }
}

TEST_CASE("a_padded_range_is_head_payload_and_tail") {
  for (const std::uint64_t alignment : {512U, 4096U, 65536U}) {
    for (const std::uint64_t offset : {std::uint64_t{0}, alignment - 1, alignment, 3 * alignment + 7}) {
      for (const std::uint64_t length : {std::uint64_t{1}, alignment - 1, alignment, 5 * alignment + 1}) {
        const padded_range found = pad(offset, length, alignment);
        CAPTURE(alignment, offset, length);
        REQUIRE(found.head + length + found.tail == found.length);
        REQUIRE(found.offset + found.head == offset);
        REQUIRE(found.head < alignment);
        REQUIRE(found.tail < alignment);
        REQUIRE(found.end() == found.offset + found.length);
        REQUIRE(found.is_exact() == (offset % alignment == 0 && length % alignment == 0));
      }
    }
  }
}

TEST_CASE("the_worked_example_of_the_header_is_right") {
  constexpr padded_range example = pad(700, 900, 512);
  static_assert(example == padded_range{.offset = 512, .length = 1536, .head = 188, .tail = 448});
  static_assert(example.end() == 2048);
  CHECK_FALSE(example.is_exact());
}

TEST_CASE("an_empty_range_pads_to_nothing") {
  for (std::uint64_t offset = 0; offset < 2048; ++offset) {
    const padded_range found = pad(offset, 0, 512);
    REQUIRE(found.length == 0);
    REQUIRE(found.is_exact());
  }
}

TEST_CASE("offsets_near_the_largest_file_do_not_wrap") {
  constexpr std::uint64_t largest = std::uint64_t{1} << 63;
  static_assert(pad(largest - 1, 1, 65536) ==
                padded_range{.offset = largest - 65536, .length = 65536, .head = 65535, .tail = 0});
  CHECK(round_up(largest - 1, 4096) == largest);
}

TEST_CASE("shrinking_agrees_with_a_naive_model_for_every_offset_and_length") {
  for (const std::uint64_t alignment : {1U, 2U, 8U, 32U}) {
    for (std::uint64_t offset = 0; offset <= 4 * alignment; ++offset) {
      for (std::uint64_t length = 0; length <= 4 * alignment; ++length) {
        const inner_range found = shrink(offset, length, alignment);
        const blocks_inside expected = naive_shrink(offset, length, alignment);
        CAPTURE(alignment, offset, length);
        REQUIRE(found.begin <= found.end);
        REQUIRE(found.end - found.begin == expected.length);
        if (expected.length != 0) REQUIRE(found.begin == expected.first);
      }
    }
  }
}
