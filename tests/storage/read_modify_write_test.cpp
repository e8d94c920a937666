#include "storage/read_modify_write.hpp"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "tests/storage/aligned_memory.hpp"
#include "tests/storage/fake_queue.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

// One unaligned write on a disk of its own.
struct unaligned_write {
  fake_disk disk;
  fake_queue queue{disk};
  read_modify_write writing;
  std::vector<std::byte> before;
  std::uint64_t offset;
  std::uint64_t length;
  padded_range blocks;
  aligned_memory memory;
  int calls = 0;
  std::error_code failure;

  unaligned_write(std::uint64_t alignment, std::uint64_t disk_size, std::uint64_t at, std::uint64_t bytes,
                  std::uint64_t seed = 1)
      : disk({.size = disk_size, .direct_end = disk_size, .alignment = static_cast<std::uint32_t>(alignment)},
             seed),
        before(disk_size),
        offset(at),
        length(bytes),
        blocks(pad(at, bytes, alignment)) {
    for (std::size_t i = 0; i < before.size(); ++i) before[i] = static_cast<std::byte>(1 + i % 100);
    disk.fill(before);
    const std::uint64_t scratch = read_modify_write::scratch_length(alignment);
    const std::uint64_t size = scratch + blocks.length;
    memory = allocate_aligned(size, alignment);
    std::fill_n(memory.get(), size, std::byte{0xEE});
    for (std::uint64_t i = 0; i < bytes; ++i) memory.get()[scratch + blocks.head + i] = payload(i);
  }
  static std::byte payload(std::uint64_t i) { return static_cast<std::byte>(128 + i % 100); }

  void start(bool durable = false) {
    writing.start({.queue = &queue, .fd = fake_disk::direct_fd, .alignment = disk.shape().alignment}, blocks,
                  memory.get(), durable, this, [](void* owner, std::error_code outcome) {
                    auto& self = *static_cast<unaligned_write*>(owner);
                    ++self.calls;
                    self.failure = outcome;
                  });
  }
  void finish() { run(disk, queue); }

  bool disk_is_patched() const {
    std::vector<std::byte> expected = before;
    for (std::uint64_t i = 0; i < length; ++i) expected[offset + i] = payload(i);
    return disk.image() == expected;
  }
};

}  // namespace

TEST_CASE("every_unaligned_write_changes_its_bytes_and_no_others") {
  constexpr std::uint64_t alignment = 8;
  constexpr std::uint64_t disk_size = 5 * alignment;
  for (std::uint64_t offset = 0; offset < disk_size; ++offset) {
    for (std::uint64_t length = 1; length <= disk_size - offset; ++length) {
      if (pad(offset, length, alignment).is_exact()) continue;
      unaligned_write world(alignment, disk_size, offset, length, offset * 41 + length);
      world.disk.short_counts(true);
      world.start();
      world.finish();
      CAPTURE(offset, length);
      REQUIRE(world.calls == 1);
      REQUIRE_FALSE(world.failure);
      REQUIRE(world.disk_is_patched());
      REQUIRE(world.disk.violations().empty());
    }
  }
}

TEST_CASE("only_the_blocks_at_the_edges_are_read_and_everything_is_written_at_once") {
  struct sample {
    std::uint64_t offset;
    std::uint64_t length;
    std::uint64_t reads;
    std::uint64_t bytes_read;
  };
  for (const sample& each : {sample{10, 20, 1, 512},       // inside one block
                             sample{500, 100, 1, 1024},    // two blocks, read together
                             sample{100, 1948, 1, 512},    // only the first of many
                             sample{512, 1537, 1, 512},    // only the last of many
                             sample{100, 2000, 2, 1024}})  // both ends
  {
    unaligned_write world(512, 8192, each.offset, each.length);
    world.start();
    world.finish();
    CAPTURE(each.offset, each.length);
    CHECK(world.disk.count(io_op::read) == each.reads);
    CHECK(world.disk.count(io_op::write) == 1);
    std::uint64_t bytes_read = 0;
    const auto log = world.disk.log();
    for (const auto& record : log) bytes_read += record.op == io_op::read ? record.length : 0;
    CHECK(bytes_read == each.bytes_read);
    CHECK(log.back().op == io_op::write);
    CHECK(log.back().offset == world.blocks.offset);
    CHECK(log.back().length == world.blocks.length);
    CHECK(world.disk_is_patched());
  }
}

TEST_CASE("rule 28: a_durable_unaligned_write_is_durable_in_the_write") {
  unaligned_write world(512, 8192, 700, 900);
  world.start(true);
  world.finish();
  const auto log = world.disk.log();
  CHECK(log.back().durable);
  CHECK(world.disk.stable()[700] == unaligned_write::payload(0));
  CHECK(world.disk.stable()[1599] == unaligned_write::payload(899));
}

TEST_CASE("a_failed_read_of_an_edge_ends_an_unaligned_write_before_it_writes") {
  for (const std::uint64_t n : {0U, 1U}) {
    unaligned_write world(512, 8192, 100, 3000);
    world.disk.fail_nth(io_op::read, n, EIO);
    world.start();
    world.finish();
    CHECK(world.calls == 1);
    CHECK(world.failure == std::error_code(EIO, std::system_category()));
    CHECK(world.disk.count(io_op::read) == n + 1);
    CHECK(world.disk.count(io_op::write) == 0);
    CHECK(world.disk.image() == world.before);
  }
}

TEST_CASE("a_failed_write_after_the_edges_is_told_as_it_is") {
  unaligned_write world(512, 8192, 100, 3000);
  world.disk.fail_nth(io_op::write, 0, ENOSPC);
  world.start();
  world.finish();
  CHECK(world.calls == 1);
  CHECK(world.failure == std::error_code(ENOSPC, std::system_category()));
}
