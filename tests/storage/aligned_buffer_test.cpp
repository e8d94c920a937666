#include "storage/aligned_buffer.hpp"

#include <cstdint>
#include <cstring>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr std::size_t kib = 1024;
constexpr std::size_t mib = 1024 * kib;

std::uintptr_t address_of(const aligned_buffer& buffer) {
  return reinterpret_cast<std::uintptr_t>(buffer.data());
}

std::vector<aligned_buffer> acquire_many(buffer_pool& pool, std::size_t count, std::size_t size) {
  std::vector<aligned_buffer> buffers;
  for (std::size_t i = 0; i < count; ++i) buffers.push_back(pool.acquire(size));
  return buffers;
}

}  // namespace

TEST_CASE("a_buffer_is_at_least_as_large_as_asked_and_aligned_to_its_size") {
  buffer_pool pool(8 * mib);
  for (const std::size_t size : {std::size_t{1}, 512 * std::size_t{1}, 4 * kib - 1, 4 * kib, 4 * kib + 1,
                                 5 * kib, 64 * kib, 64 * kib + 1, mib - 1, mib, mib + 1, 2 * mib}) {
    CAPTURE(size);
    const aligned_buffer buffer = pool.acquire(size);
    REQUIRE(buffer);
    CHECK(buffer.size() >= size);
    CHECK(buffer.size() == buffer_pool::occupied_by(size));
    CHECK(address_of(buffer) % buffer.size() == 0);
    std::memset(buffer.data(), 0xAB, buffer.size());
  }
}

TEST_CASE("sizes_are_rounded_up_to_powers_of_two_and_large_ones_to_two_mebibytes") {
  CHECK(buffer_pool::occupied_by(1) == 4 * kib);
  CHECK(buffer_pool::occupied_by(4 * kib) == 4 * kib);
  CHECK(buffer_pool::occupied_by(4 * kib + 1) == 8 * kib);
  CHECK(buffer_pool::occupied_by(100 * kib) == 128 * kib);
  CHECK(buffer_pool::occupied_by(2 * mib) == 2 * mib);
  CHECK(buffer_pool::occupied_by(2 * mib + 1) == 4 * mib);
  CHECK(buffer_pool::occupied_by(33 * mib) == 34 * mib);
}

TEST_CASE("the_buffer_given_back_last_is_handed_out_first") {
  buffer_pool pool(4 * mib);
  aligned_buffer first = pool.acquire(4096);
  aligned_buffer second = pool.acquire(4096);
  const std::uintptr_t first_address = address_of(first);
  const std::uintptr_t second_address = address_of(second);
  first = {};
  second = {};
  const aligned_buffer third = pool.acquire(4096);
  const aligned_buffer fourth = pool.acquire(4096);
  CHECK(address_of(third) == second_address);
  CHECK(address_of(fourth) == first_address);
}

TEST_CASE("buffers_that_are_out_never_overlap") {
  buffer_pool pool(8 * mib);
  std::mt19937 generator(7);
  struct held {
    aligned_buffer buffer;
    unsigned char mark;
  };
  std::vector<held> out;
  unsigned char next_mark = 0;
  for (int round = 0; round < 4000; ++round) {
    if (out.size() < 40 && generator() % 2 == 0) {
      const std::size_t size = std::size_t{1} << (10 + generator() % 11);
      aligned_buffer buffer = pool.acquire(size);
      REQUIRE(buffer);
      REQUIRE(address_of(buffer) % buffer.size() == 0);
      std::memset(buffer.data(), ++next_mark, 64);
      std::memset(buffer.data() + buffer.size() - 64, next_mark, 64);
      out.push_back({std::move(buffer), next_mark});
    } else if (!out.empty()) {
      const std::size_t index = generator() % out.size();
      const held& leaving = out[index];
      REQUIRE(leaving.buffer.data()[0] == std::byte{leaving.mark});
      REQUIRE(leaving.buffer.data()[leaving.buffer.size() - 1] == std::byte{leaving.mark});
      std::swap(out[index], out.back());
      out.pop_back();
    }
    REQUIRE(pool.buffers_out() == out.size());
    REQUIRE(pool.pooled_bytes() <= 8 * mib);
  }
}

TEST_CASE("a_pool_maps_memory_only_when_it_is_needed") {
  buffer_pool pool(64 * mib);
  CHECK(pool.pooled_bytes() == 0);
  const auto buffers = acquire_many(pool, 512, 4096);
  CHECK(pool.pooled_bytes() == 2 * mib);
  const aligned_buffer one_more = pool.acquire(4096);
  CHECK(pool.pooled_bytes() == 4 * mib);
}

TEST_CASE("a_pool_keeps_no_more_than_its_bound") {
  buffer_pool pool(4 * mib);
  {
    const auto buffers = acquire_many(pool, 40, 256 * kib);
    CHECK(pool.pooled_bytes() == 4 * mib);
    CHECK(pool.buffers_out() == 40);
  }
  CHECK(pool.pooled_bytes() == 4 * mib);
  CHECK(pool.buffers_out() == 0);
}

TEST_CASE("what_goes_past_the_bound_is_served_aligned_and_given_back") {
  for (const std::size_t bound : {std::size_t{0}, 2 * mib - 1, 2 * mib}) {
    buffer_pool pool(bound);
    std::vector<aligned_buffer> buffers;
    for (const std::size_t size : {4 * kib, 64 * kib, 2 * mib, 2 * mib, 2 * mib, 4 * kib}) {
      buffers.push_back(pool.acquire(size));
      REQUIRE(buffers.back());
      CHECK(address_of(buffers.back()) % size == 0);
      std::memset(buffers.back().data(), 1, size);
    }
    CHECK(pool.buffers_out() == 6);
    CHECK(pool.pooled_bytes() <= bound);
    buffers.clear();
    CHECK(pool.buffers_out() == 0);
  }
}

TEST_CASE("memory_of_a_full_pool_is_taken_over_by_other_sizes_once_idle") {
  buffer_pool pool(4 * mib);
  std::set<std::uintptr_t> first_chunks;
  {
    const auto small = acquire_many(pool, 1024, 4 * kib);
    for (const auto& buffer : small) first_chunks.insert(address_of(buffer) / (2 * mib));
  }
  REQUIRE(first_chunks.size() == 2);
  const auto large = acquire_many(pool, 2, 2 * mib);
  CHECK(pool.pooled_bytes() == 4 * mib);
  for (const auto& buffer : large) CHECK(first_chunks.count(address_of(buffer) / (2 * mib)) == 1);
}

TEST_CASE("memory_of_which_a_block_is_out_is_not_taken_over") {
  buffer_pool pool(2 * mib);
  const aligned_buffer small = pool.acquire(4 * kib);
  std::memset(small.data(), 0x5A, small.size());
  const aligned_buffer large = pool.acquire(2 * mib);
  std::memset(large.data(), 0, large.size());
  CHECK(address_of(large) / (2 * mib) != address_of(small) / (2 * mib));
  CHECK(small.data()[0] == std::byte{0x5A});
}

TEST_CASE("a_buffer_of_more_than_two_mebibytes_has_memory_of_its_own") {
  buffer_pool pool(4 * mib);
  {
    const aligned_buffer large = pool.acquire(32 * mib + 5);
    REQUIRE(large);
    CHECK(large.size() == 34 * mib);
    CHECK(address_of(large) % (2 * mib) == 0);
    large.data()[0] = std::byte{1};
    large.data()[large.size() - 1] = std::byte{1};
    CHECK(pool.pooled_bytes() == 0);
    CHECK(pool.buffers_out() == 1);
  }
  CHECK(pool.buffers_out() == 0);
}

TEST_CASE("a_size_that_no_memory_can_hold_gives_an_empty_buffer") {
  buffer_pool pool(4 * mib);
  const aligned_buffer impossible = pool.acquire(std::size_t{1} << 60);
  CHECK_FALSE(impossible);
  CHECK(pool.buffers_out() == 0);
}

TEST_CASE("a_large_buffer_that_comes_back_serves_the_next_of_its_size") {
  buffer_pool pool(8 * mib);
  const std::uintptr_t first = address_of(pool.acquire(32 * mib));
  CHECK(pool.spare_bytes() == 32 * mib);
  const aligned_buffer other = pool.acquire(8 * mib);
  CHECK(address_of(other) != first);
  const aligned_buffer again = pool.acquire(32 * mib);
  CHECK(address_of(again) == first);
  CHECK(pool.spare_bytes() == 0);
}

TEST_CASE("the_spare_large_buffers_are_bounded_and_the_oldest_goes_first") {
  buffer_pool pool(8 * mib);
  {
    const auto small = acquire_many(pool, 2, 4 * mib);
    const auto large = acquire_many(pool, 3, 30 * mib);
    CHECK(pool.spare_bytes() == 0);
  }
  CHECK(pool.spare_bytes() == 38 * mib);  // the last of 30, and both of 4
  { const aligned_buffer beyond = pool.acquire(buffer_pool::spare_bytes_max + 1); }
  CHECK(pool.spare_bytes() == 38 * mib);  // the last of 30, and both of 4
}

TEST_CASE("moving_a_buffer_passes_on_what_it_owns") {
  buffer_pool pool(4 * mib);
  aligned_buffer first = pool.acquire(4096);
  const std::uintptr_t address = address_of(first);

  aligned_buffer second = std::move(first);
  CHECK_FALSE(first);
  CHECK(address_of(second) == address);
  CHECK(pool.buffers_out() == 1);

  aligned_buffer third = pool.acquire(4096);
  third = std::move(second);  // what it held goes back
  CHECK(address_of(third) == address);
  CHECK_FALSE(second);
  CHECK(pool.buffers_out() == 1);

  aligned_buffer& itself = third;
  third = std::move(itself);
  CHECK(address_of(third) == address);
  CHECK(pool.buffers_out() == 1);

  third = aligned_buffer();
  CHECK(pool.buffers_out() == 0);
  CHECK(third.data() == nullptr);
  CHECK(third.size() == 0);
}
