// Reads that leave out holes, on a disk in memory whose map is looked at piece by piece while other requests
// are under way.
#include "storage/sparse_read.hpp"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "tests/storage/device_request.hpp"
#include "tests/storage/fake_queue.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr std::uint64_t kib = 1024, mib = 1024 * kib;
using enum extent_kind;
using extents = std::vector<extent>;

geometry sparse_shape(std::uint64_t size = 4 * mib, std::uint32_t alignment = 512) {
  return {.size = size,
          .direct_end = round_down(size, std::max<std::uint64_t>(alignment, 4096)),
          .alignment = alignment,
          .zeroing_granularity = std::max<std::uint32_t>(alignment, 4096),
          .may_have_holes = true,
          .can_punch_hole = true,
          .can_zero_range = true};
}

std::byte content_at(std::uint64_t offset) {
  return static_cast<std::byte>(1 + offset % 251 % 255);  // never zero
}

struct sparse_world {
  explicit sparse_world(const geometry& shape = sparse_shape(), std::uint64_t seed = 1)
      : disk(shape, seed), queue(disk), device(shape, disk.file()) {
    std::vector<std::byte> content(shape.size);
    for (std::uint64_t at = 0; at < shape.size; ++at) content[at] = content_at(at);
    disk.fill(content);
  }
  ~sparse_world() { CHECK(disk.violations() == std::vector<std::string>{}); }

  // Reads, and checks what must hold of every read. A part that is said to be a hole is zeroes on the disk.
  extents read(std::uint64_t offset, std::uint64_t length, bool may_skip_holes = true) {
    CAPTURE(offset, length);
    device_request request(device, operation_kind::read, offset, length);
    request.op.may_skip_holes = may_skip_holes;
    request.submit(queue);
    run(disk, queue);
    REQUIRE(request.is_done());
    REQUIRE_FALSE(request.was_done_inside_submit());
    REQUIRE_FALSE(request.failure());
    check_content(request);
    return request.op.extents.items;
  }

  void check_content(const device_request& request) {
    const auto image = disk.image();
    extents parts = request.op.extents.items;
    if (parts.empty()) parts.push_back({request.op.length, data});
    std::uint64_t at = 0;
    for (const extent& part : parts) {
      REQUIRE(part.length != 0);
      REQUIRE(at + part.length <= request.op.length);
      const auto there = image.begin() + static_cast<std::ptrdiff_t>(request.op.offset + at);
      const auto end = there + static_cast<std::ptrdiff_t>(part.length);
      if (part.kind == data) {
        REQUIRE(std::equal(there, end, request.payload().begin() + static_cast<std::ptrdiff_t>(at)));
      } else {
        REQUIRE(std::all_of(there, end, [](std::byte each) { return each == std::byte{0}; }));
      }
      at += part.length;
    }
    REQUIRE(at == request.op.length);
  }

  std::uint64_t bytes_read() const {
    std::uint64_t sum = 0;
    for (const auto& each : disk.log()) {
      if (each.op == io_op::read || each.op == io_op::buffered_read) sum += each.length;
    }
    return sum;
  }

  fake_disk disk;
  fake_queue queue;
  block_device device;
};

}  // namespace

TEST_CASE("holes_are_left_out_of_a_read") {
  sparse_world world;
  world.disk.make(hole, 256 * kib, 128 * kib);
  CHECK(world.read(0, mib) == extents{{256 * kib, data}, {128 * kib, hole}, {640 * kib, data}});
  CHECK(world.bytes_read() == mib - 128 * kib);
}

TEST_CASE("unwritten_space_is_left_out_of_a_read") {
  sparse_world world;
  world.disk.make(unwritten, 256 * kib, 128 * kib);
  CHECK(world.read(0, mib) == extents{{256 * kib, data}, {128 * kib, hole}, {640 * kib, data}});
  CHECK(world.bytes_read() == mib - 128 * kib);
}

TEST_CASE("a_read_of_nothing_but_a_hole_reads_nothing") {
  sparse_world world;
  world.disk.make(hole, 0, 4 * mib);
  CHECK(world.read(0, mib) == extents{{mib, hole}});
  CHECK(world.read(12345, 100'000) == extents{{100'000, hole}});
  CHECK(world.bytes_read() == 0);
}

TEST_CASE("a_read_that_may_not_skip_holes_reads_everything_unasked") {
  sparse_world world;
  world.disk.make(hole, 0, 4 * mib);
  CHECK(world.read(0, mib, false).empty());
  CHECK(world.disk.count(io_op::map) == 0);
  CHECK(world.bytes_read() == mib);
}

TEST_CASE("one_look_is_enough_for_the_dense_regions_that_follow") {
  sparse_world world(sparse_shape(8 * mib));
  world.disk.make(hole, 7 * mib, 64 * kib);
  for (std::uint64_t at = 0; at < 7 * mib; at += 256 * kib) CHECK(world.read(at, 256 * kib).empty());
  CHECK(world.disk.count(io_op::map) == 1);
  CHECK(world.read(7 * mib, mib) == extents{{64 * kib, hole}, {960 * kib, data}});
  CHECK(world.disk.count(io_op::map) == 2);
}

TEST_CASE("a_file_without_holes_is_never_asked") {
  geometry shape = sparse_shape();
  shape.may_have_holes = false;
  sparse_world world(shape);
  CHECK(world.read(0, mib).empty());
  CHECK(world.disk.count(io_op::map) == 0);
}

TEST_CASE("a_file_may_have_holes_once_something_was_trimmed") {
  geometry shape = sparse_shape();
  shape.may_have_holes = false;
  sparse_world world(shape);
  for (const operation_kind kind : {operation_kind::trim, operation_kind::write_zeroes}) {
    device_request change(world.device, kind, kind == operation_kind::trim ? 0 : mib, 512 * kib);
    change.submit(world.queue);
    run(world.disk, world.queue);
    REQUIRE_FALSE(change.failure());
  }
  CHECK(world.read(0, mib) == extents{{512 * kib, hole}, {512 * kib, data}});
  CHECK(world.read(mib, mib) == extents{{512 * kib, hole}, {512 * kib, data}});
}

// It has no map to ask: a thread would be bothered for nothing.
TEST_CASE("a_disk_is_never_asked_for_its_holes") {
  geometry shape = sparse_shape();
  shape.may_have_holes = false;
  shape.is_block_device = shape.can_discard = true;
  sparse_world world(shape);
  device_request trim(world.device, operation_kind::trim, 0, mib);
  trim.submit(world.queue);
  run(world.disk, world.queue);
  CHECK(world.read(0, mib).empty());
  CHECK(world.disk.count(io_op::map) == 0);
}

TEST_CASE("short_reads_are_just_read") {
  sparse_world world;
  world.disk.make(hole, 0, 4 * mib);
  CHECK(world.read(0, sparse_read::length_min - 1).empty());
  CHECK(world.disk.count(io_op::map) == 0);
  CHECK(world.read(0, sparse_read::length_min) == extents{{sparse_read::length_min, hole}});
}

TEST_CASE("short_holes_are_read_with_the_data_around_them") {
  sparse_world world;
  world.disk.make(hole, 100 * kib, sparse_read::hole_length_min - 4 * kib);
  CHECK(world.read(0, mib).empty());
  CHECK(world.disk.count(io_op::read) == 1);

  world.disk.make(hole, 200 * kib, sparse_read::hole_length_min);
  CHECK(world.read(0, mib) ==
        extents{{200 * kib, data}, {sparse_read::hole_length_min, hole}, {mib - 216 * kib, data}});
}

// Neither alone is worth a piece of its own, but both are zeroes.
TEST_CASE("a_hole_beside_unwritten_space_is_left_out_as_one") {
  sparse_world world;
  world.disk.make(hole, 100 * kib, 8 * kib);
  world.disk.make(unwritten, 108 * kib, 8 * kib);
  const extents found = world.read(0, mib);
  CHECK(found.size() == 3);
  CHECK(world.bytes_read() == mib - 16 * kib);
}

TEST_CASE("only_the_part_of_a_hole_in_the_range_counts") {
  sparse_world world;
  world.disk.make(hole, 0, mib);
  world.disk.make(hole, 2 * mib, mib);
  CHECK(world.read(mib - 8 * kib, mib).empty());
  CHECK(world.read(mib - 8 * kib, mib + 16 * kib).empty());
  CHECK(world.read(mib - 16 * kib, mib) == extents{{16 * kib, hole}, {mib - 16 * kib, data}});
  CHECK(world.read(mib, mib + 16 * kib) == extents{{mib, data}, {16 * kib, hole}});
}

TEST_CASE("a_dense_region_is_asked_for_only_once") {
  sparse_world world;
  world.disk.make(hole, 3 * mib, 64 * kib);
  for (int i = 0; i < 3; ++i) {
    CHECK(world.read(0, mib).empty());
    CHECK(world.read(100, 100 * kib).empty());
    CHECK(world.read(512 * kib, 128 * kib).empty());
  }
  CHECK(world.disk.count(io_op::map) == 1);
  // A region with a hole is asked for each time; nothing says that the hole is still there.
  for (int i = 0; i < 3; ++i) CHECK(world.read(3 * mib, mib).size() == 2);
  CHECK(world.disk.count(io_op::map) == 4);
  CHECK(world.read(mib, 3 * mib).size() == 3);
  CHECK(world.disk.count(io_op::map) == 5);
  CHECK(world.read(mib, 2 * mib).empty());
  CHECK(world.disk.count(io_op::map) == 5);
}

TEST_CASE("a_dense_piece_at_the_end_of_the_file_is_asked_for_only_once") {
  for (const std::uint64_t size : {2 * mib + 256 * kib, 512 * kib, 3 * mib + 128 * kib + 100}) {
    CAPTURE(size);
    sparse_world world(sparse_shape(size));
    const std::uint64_t offset = round_down(size, mib);
    for (int i = 0; i < 3; ++i) CHECK(world.read(offset, round_down(size - offset, 4096)).empty());
    CHECK(world.disk.count(io_op::map) == 1);
  }
}

TEST_CASE("a_trim_makes_a_dense_region_worth_asking_for_again") {
  for (const operation_kind kind : {operation_kind::trim, operation_kind::write_zeroes}) {
    sparse_world world;
    CHECK(world.read(0, 4 * mib).empty());
    device_request change(world.device, kind, mib + 4096, 64 * kib);
    change.submit(world.queue);
    run(world.disk, world.queue);
    CHECK(world.read(0, mib).empty());
    CHECK(world.disk.count(io_op::map) == 1);
    CHECK(world.read(mib, mib) == extents{{4096, data}, {64 * kib, hole}, {mib - 68 * kib, data}});
    CHECK(world.disk.count(io_op::map) == 2);
  }
}

TEST_CASE("a_hole_that_is_written_is_no_hole_any_more") {
  sparse_world world;
  world.disk.make(hole, 0, mib);
  CHECK(world.read(0, mib) == extents{{mib, hole}});
  device_request write(world.device, operation_kind::write, 300'000, 5);
  write.filled_with(std::byte{0x77}).submit(world.queue);
  run(world.disk, world.queue);
  const extents found = world.read(0, mib);
  CHECK(found.size() == 3);
  CHECK(found.at(1).kind == data);
  CHECK(world.disk.kind_at(300'000) == data);
}

TEST_CASE("what_lies_behind_the_longest_list_is_taken_for_data") {
  sparse_world world;
  for (std::uint64_t at = 0; at < 4 * mib; at += 32 * kib) world.disk.make(hole, at, 16 * kib);
  const extents found = world.read(0, 4 * mib);
  CHECK(found.size() == sparse_read::extents_max);
  CHECK(found.back().kind == data);
  // Its front is not in the range, and what follows is not known.
  CHECK(world.read(2 * mib, 64 * kib).size() == 4);
  CHECK(world.read(2 * mib + 512 * kib, 2 * mib - 512 * kib).size() >= 2);
}

TEST_CASE("unaligned_reads_get_their_edges_right") {
  for (const std::uint32_t alignment : {512U, 4096U, 65536U}) {
    const std::uint64_t block = std::max<std::uint64_t>(alignment, 4096);
    CAPTURE(alignment);
    sparse_world world(sparse_shape(2 * mib + 128 * kib, alignment), alignment);
    world.disk.make(hole, mib, 256 * kib);
    world.disk.make(unwritten, 2 * mib - 64 * kib, 64 * kib);
    const std::vector<std::uint64_t> shifts{0, 1, 511, 512, block - 1, block, block + 1};
    for (const std::uint64_t before : shifts) {
      for (const std::uint64_t after : shifts) {
        // Around the hole, and from the middle of it.
        CHECK(world.read(mib - before, 256 * kib + before + after).size() ==
              1U + (before != 0) + (after != 0));
        CHECK(world.read(mib + before, mib - before + after).size() == 3U + (after != 0));
        // In the middle of data, next to a hole that is not in the range.
        (void)world.read(mib - 100'000 - before, 100'000);
        (void)world.read(mib + 256 * kib + before, 70'000 + after);
      }
    }
  }
}

TEST_CASE("reads_next_to_an_odd_end_are_whole") {
  const std::uint64_t size = 3 * mib + 12'345;
  sparse_world world(sparse_shape(size));
  world.disk.make(hole, mib, mib);
  const std::uint64_t direct_end = world.device.shape().direct_end;
  CHECK(world.read(mib, direct_end - mib) == extents{{mib, hole}, {direct_end - 2 * mib, data}});
  // The buffered piece is not worth a special case.
  CHECK(world.read(mib, direct_end - mib + 1).empty());
  CHECK(world.read(mib, size - mib).empty());
  CHECK(world.read(direct_end - 100'000, 100'000).empty());
}

TEST_CASE("a_file_without_direct_access_has_its_holes_left_out") {
  geometry shape = sparse_shape(3 * mib + 12'345);
  shape.direct_end = 0;
  shape.alignment = 1;
  sparse_world world(shape);
  world.disk.make(hole, mib, mib);
  CHECK(world.read(mib - 3, mib + 7) == extents{{3, data}, {mib, hole}, {4, data}});
  CHECK(world.disk.count(io_op::read) == 0);
  CHECK(world.disk.count(io_op::buffered_read) == 2);
  CHECK(world.read(2 * mib - 17'000, mib + 12'345 + 17'000).size() == 2);
}

TEST_CASE("short_transfers_are_continued_in_every_piece") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    CAPTURE(seed);
    sparse_world world(sparse_shape(), seed);
    world.disk.short_counts(true);
    for (std::uint64_t at = 64 * kib; at < 4 * mib; at += 256 * kib) world.disk.make(hole, at, 32 * kib);
    CHECK(world.read(513, 2 * mib).size() == 17);
  }
}

TEST_CASE("a_map_that_cannot_be_had_does_not_fail_a_read") {
  for (const int error : {EIO, EOPNOTSUPP, ENOMEM, EINTR}) {
    for (std::uint64_t seed = 0; seed < 3; ++seed) {  // which stops it at different places
      sparse_world world(sparse_shape(), seed);
      world.disk.make(hole, 512 * kib, 512 * kib);
      world.disk.refuse_all(io_op::map, error);
      CHECK(world.read(0, mib).empty());
      CHECK(world.bytes_read() == mib);
      CHECK(world.read(0, mib).empty());
      CHECK(world.disk.count(io_op::map) == 2);  // of nothing that was not found out is anything remembered
    }
  }
}

TEST_CASE("each_operation_of_a_sparse_read_may_fail") {
  for (std::uint64_t n = 0;; ++n) {
    sparse_world world;
    for (std::uint64_t at = 64 * kib; at < mib; at += 256 * kib) world.disk.make(hole, at, 64 * kib);
    world.disk.fail_nth_of_any(n, EIO);
    device_request request(world.device, operation_kind::read, 100, mib);
    request.op.may_skip_holes = true;
    request.submit(world.queue);
    run(world.disk, world.queue);
    CAPTURE(n);
    REQUIRE(request.times_done() == 1);
    if (world.disk.failures_injected() == 0) {
      CHECK(n == 6);  // the map and five pieces
      REQUIRE_FALSE(request.failure());
      return;
    }
    if (n == 0) {
      REQUIRE_FALSE(request.failure());
      world.check_content(request);
    } else {
      REQUIRE(request.failure() == std::errc::io_error);
    }
    // Nothing of it stays behind for the next.
    request.submit(world.queue);
    run(world.disk, world.queue);
    REQUIRE(request.times_done() == 1);
    REQUIRE_FALSE(request.failure());
    world.check_content(request);
  }
}

TEST_CASE("a_read_that_was_sparse_leaves_no_extents_to_one_that_is_not") {
  sparse_world world;
  world.disk.make(hole, 0, mib);
  device_request request(world.device, operation_kind::read, 0, 2 * mib);
  request.op.may_skip_holes = true;
  request.submit(world.queue);
  run(world.disk, world.queue);
  REQUIRE(request.op.extents.items.size() == 2);
  request.op.may_skip_holes = false;
  request.submit(world.queue);
  run(world.disk, world.queue);
  CHECK(request.op.extents.items.empty());
}
