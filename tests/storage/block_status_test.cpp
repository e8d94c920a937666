// What a range consists of: on a disk in memory, and on a real file, where reads have to agree with it.
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "storage/aio_queue.hpp"
#include "storage/block_device.hpp"
#include "storage/offload_queue.hpp"
#include "tests/storage/device_request.hpp"
#include "tests/storage/fake_queue.hpp"
#include "tests/storage/temporary_file.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr std::uint64_t kib = 1024, mib = 1024 * kib;
using enum extent_kind;
using extents = std::vector<extent>;

geometry shape_of(std::uint64_t size, std::uint32_t alignment = 512) {
  return {.size = size,
          .direct_end = round_down(size, std::max<std::uint64_t>(alignment, 4096)),
          .alignment = alignment,
          .may_have_holes = true,
          .can_punch_hole = true,
          .can_zero_range = true};
}

struct status_world {
  explicit status_world(const geometry& shape = shape_of(mib), std::uint64_t seed = 1)
      : disk(shape, seed), queue(disk), device(shape, disk.file()) {}
  ~status_world() { CHECK(disk.violations() == std::vector<std::string>{}); }

  void carry_out(device_request& request) {
    request.submit(queue);
    run(disk, queue);
    REQUIRE(request.is_done());
    REQUIRE_FALSE(request.was_done_inside_submit());
  }
  void change(operation_kind kind, std::uint64_t offset, std::uint64_t length, bool keep_allocated = false) {
    device_request request(device, kind, offset, length);
    if (kind == operation_kind::write) request.filled_with(std::byte{7});
    request.op.keep_allocated = keep_allocated;
    carry_out(request);
    REQUIRE_FALSE(request.failure());
  }
  extents status(std::uint64_t offset, std::uint64_t length, std::size_t count_max = 1024) {
    device_request request(device, operation_kind::block_status, offset, length);
    request.op.extents.count_max = count_max;
    carry_out(request);
    REQUIRE_FALSE(request.failure());
    return request.op.extents.items;
  }

  fake_disk disk;
  fake_queue queue;
  block_device device;
};

}  // namespace

TEST_CASE("a_range_consists_of_what_the_disk_says") {
  status_world world;
  world.disk.make(data, 64 * kib, 64 * kib);
  world.disk.make(unwritten, 128 * kib, 64 * kib);
  CHECK(world.status(0, mib) ==
        extents{{64 * kib, hole}, {64 * kib, data}, {64 * kib, unwritten}, {mib - 192 * kib, hole}});
  CHECK(world.status(64 * kib - 1, 2) == extents{{1, hole}, {1, data}});
  CHECK(world.status(mib - 1, 1) == extents{{1, hole}});
}

TEST_CASE("changes_show_in_what_a_range_consists_of") {
  status_world world;
  world.change(operation_kind::write, 4096, 8192);
  CHECK(world.status(0, 16 * kib) == extents{{4096, hole}, {8192, data}, {4096, hole}});
  world.change(operation_kind::trim, 4096, 4096);
  CHECK(world.status(0, 16 * kib) == extents{{8192, hole}, {4096, data}, {4096, hole}});
  world.change(operation_kind::write_zeroes, 0, 4096, true);
  CHECK(world.status(0, 16 * kib) == extents{{4096, unwritten}, {4096, hole}, {4096, data}, {4096, hole}});
  world.change(operation_kind::write_zeroes, 0, 12 * kib);
  CHECK(world.status(0, 16 * kib) == extents{{16 * kib, hole}});
}

TEST_CASE("a_status_ends_at_the_longest_list_that_was_asked_for") {
  status_world world;
  for (std::uint64_t at = 0; at < mib; at += 8192) world.disk.make(data, at, 4096);
  CHECK(world.status(0, mib, 1) == extents{{4096, data}});
  CHECK(world.status(0, mib, 3) == extents{{4096, data}, {4096, hole}, {4096, data}});
  CHECK(world.status(0, mib).size() == 256);
}

TEST_CASE("the_status_of_the_whole_device_needs_no_memory_and_no_reads") {
  status_world world;
  CHECK(world.status(0, mib) == extents{{mib, hole}});
  CHECK(world.disk.count(io_op::map) == 1);
  CHECK(world.disk.count(io_op::read) == 0);
}

TEST_CASE("a_status_waits_for_no_write") {
  status_world world;
  device_request write(world.device, operation_kind::write, 0, 8192);
  write.filled_with(std::byte{1}).submit(world.queue);
  device_request status(world.device, operation_kind::block_status, 0, mib);
  status.submit(world.queue);
  world.queue.flush();
  CHECK(world.disk.in_flight() == 2);
  run(world.disk, world.queue);
  CHECK(write.is_done());
  CHECK(status.is_done());
}

TEST_CASE("a_failure_to_look_fails_the_status_and_nothing_after_it") {
  status_world world;
  world.disk.fail_nth(io_op::map, 0, EIO);
  device_request status(world.device, operation_kind::block_status, 0, mib);
  world.carry_out(status);
  CHECK(status.failure() == std::errc::io_error);
  world.carry_out(status);
  CHECK_FALSE(status.failure());
  CHECK(status.op.extents.items == extents{{mib, hole}});
}

// The lookup and the message that a change sends itself are one request.
TEST_CASE("an_operation_that_was_a_status_may_become_a_trim") {
  status_world world;
  device_request request(world.device, operation_kind::block_status, 0, mib);
  for (int i = 0; i < 3; ++i) {
    request.op.kind = operation_kind::block_status;
    world.carry_out(request);
    REQUIRE_FALSE(request.failure());
    request.op.kind = operation_kind::trim;
    world.carry_out(request);
    REQUIRE_FALSE(request.failure());
  }
  CHECK(world.disk.count(io_op::map) == 3);
  CHECK(world.disk.count(io_op::punch_hole) == 3);
}

TEST_CASE("the_status_of_no_bytes_has_no_extents") {
  status_world world;
  CHECK(world.status(4096, 0).empty());
}

namespace {

// A real file and a real queue.
struct file_world {
  explicit file_world(std::uint64_t size)
      : file(size), device(shape_of(size, 4096), {.direct = file.direct(), .buffered = file.buffered()}) {}

  void carry_out(device_request& request) {
    request.submit(queue);
    queue.flush();
    while (!request.is_done()) {
      pollfd readable{.fd = queue.event_fd(), .events = POLLIN, .revents = 0};
      REQUIRE(::poll(&readable, 1, 10'000) == 1);
      queue.drain();
    }
    REQUIRE_FALSE(request.failure());
  }
  void change(operation_kind kind, std::uint64_t offset, std::uint64_t length, bool keep_allocated = false) {
    device_request request(device, kind, offset, length);
    if (kind == operation_kind::write) request.filled_with(std::byte{7});
    request.op.keep_allocated = keep_allocated;
    carry_out(request);
  }
  extents status(std::uint64_t offset, std::uint64_t length) {
    device_request request(device, operation_kind::block_status, offset, length);
    carry_out(request);
    check_against_reads(offset, request.op.extents.items);
    return request.op.extents.items;
  }

  // What is said to be no data is read as zeroes, and reads that leave out holes find what others find.
  void check_against_reads(std::uint64_t offset, const extents& parts) {
    for (const extent& part : parts) {
      device_request whole(device, operation_kind::read, offset, part.length);
      device_request sparse(device, operation_kind::read, offset, part.length);
      sparse.op.may_skip_holes = true;
      carry_out(whole);
      carry_out(sparse);
      if (part.kind != data) REQUIRE(is_zero(whole.payload()));
      extents found = sparse.op.extents.items;
      if (found.empty()) found.push_back({part.length, data});
      std::uint64_t at = 0;
      for (const extent& each : found) {
        const auto wanted = whole.payload().subspan(at, each.length);
        const auto other = sparse.payload().subspan(at, each.length);
        REQUIRE((each.kind == data ? std::ranges::equal(wanted, other) : is_zero(wanted)));
        at += each.length;
      }
      offset += part.length;
    }
  }
  static bool is_zero(std::span<const std::byte> bytes) {
    return std::ranges::all_of(bytes, [](std::byte each) { return each == std::byte{0}; });
  }

  temporary_file file;
  offload_queue blocking{2};
  aio_queue queue{64, blocking};
  block_device device;
};

}  // namespace

TEST_CASE("rule 25: a_real_file_tells_holes_unwritten_space_and_data_apart") {
  file_world world(mib);
  REQUIRE(::fallocate(world.file.direct(), FALLOC_FL_KEEP_SIZE, 256 * kib, 256 * kib) == 0);
  world.change(operation_kind::write, 384 * kib, 64 * kib);
  CHECK(world.status(0, mib) == extents{{256 * kib, hole},
                                        {128 * kib, unwritten},
                                        {64 * kib, data},
                                        {64 * kib, unwritten},
                                        {512 * kib, hole}});
}

TEST_CASE("rule 31: reads_agree_with_the_status_of_a_real_file_after_every_change") {
  file_world world(mib + 700);
  world.change(operation_kind::write, 0, 512 * kib);
  CHECK(world.status(0, mib) == extents{{512 * kib, data}, {512 * kib, hole}});
  world.change(operation_kind::trim, 64 * kib, 128 * kib);
  CHECK(world.status(0, mib) ==
        extents{{64 * kib, data}, {128 * kib, hole}, {320 * kib, data}, {512 * kib, hole}});
  world.change(operation_kind::write_zeroes, 256 * kib, 64 * kib, true);
  CHECK(world.status(192 * kib, 320 * kib) ==
        extents{{64 * kib, data}, {64 * kib, unwritten}, {192 * kib, data}});
  world.change(operation_kind::write_zeroes, 0, mib);
  CHECK(world.status(0, mib) == extents{{mib, hole}});
  // By way of the page cache, at the end.
  world.change(operation_kind::write, mib + 100, 600);
  const extents end = world.status(mib - 4096, 4096 + 700);
  CHECK(end == extents{{4096, hole}, {700, data}});
}

TEST_CASE("rule 31: unaligned_changes_of_a_real_file_agree_with_its_status") {
  file_world world(mib);
  std::uint64_t seed = 1;
  const auto random = [&](std::uint64_t limit) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (seed >> 33) % limit;
  };
  for (int round = 0; round < 30; ++round) {
    const std::uint64_t offset = random(mib), length = 1 + random(std::min(mib - offset, 200 * kib));
    constexpr operation_kind kinds[] = {operation_kind::write, operation_kind::trim,
                                        operation_kind::write_zeroes};
    CAPTURE(round, offset, length);
    world.change(kinds[random(3)], offset, length, random(2) == 0);
    std::uint64_t sum = 0;
    for (const extent& part : world.status(0, mib)) sum += part.length;
    REQUIRE(sum == mib);
  }
}
