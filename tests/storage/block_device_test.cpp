#include "storage/block_device.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <optional>
#include <vector>

#include "storage/file_descriptor.hpp"
#include "tests/storage/device_request.hpp"
#include "tests/storage/fake_queue.hpp"
#include "tests/storage/process_end.hpp"
#include "tests/storage/temporary_file.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

const std::error_code input_output_error(EIO, std::system_category());

std::byte pattern(std::uint64_t seed, std::uint64_t i) {
  return static_cast<std::byte>(seed * 31 + i * 7 + i / 251);
}

geometry shape_of(std::uint64_t size, std::uint64_t direct_end, std::uint32_t alignment) {
  return {.size = size,
          .direct_end = direct_end,
          .alignment = alignment,
          .zeroing_granularity = std::max<std::uint32_t>(alignment, 4096)};
}

struct device_world {
  fake_disk disk;
  fake_queue queue{disk};
  block_device device;
  std::vector<std::byte> reference;

  explicit device_world(const geometry& shape, std::uint64_t seed = 1)
      : disk(shape, seed), device(shape, disk.file()), reference(shape.size) {
    for (std::uint64_t i = 0; i < shape.size; ++i) reference[i] = pattern(seed, i);
    disk.fill(reference);
  }
  ~device_world() {
    CHECK(disk.violations() == std::vector<std::string>{});
    CHECK(queue.outstanding() == 0);
  }

  void carry_out(device_request& request) {
    request.submit(queue);
    if (request.was_done_inside_submit()) FAIL("done inside submit");
    run(disk, queue);
    if (request.times_done() != 1) FAIL("not done once");
  }
  // By a client who hears of failed syncs, or by nobody.
  std::error_code flush(sync_witness* by = nullptr) {
    device_request flushing(device, operation_kind::flush);
    flushing.op.witness = by;
    carry_out(flushing);
    return flushing.failure();
  }
  // Somebody else's, who is told.
  void fail_a_sync() {
    disk.fail_nth(io_op::sync, 0, EIO);
    CHECK(flush() == input_output_error);
  }
  void read_and_compare(std::uint64_t offset, std::uint64_t length) {
    device_request read(device, operation_kind::read, offset, length);
    carry_out(read);
    const auto place = reference.begin() + static_cast<std::ptrdiff_t>(offset);
    if (read.failure() || !std::equal(read.payload().begin(), read.payload().end(), place)) {
      CAPTURE(offset, length, read.failure());
      FAIL("the wrong bytes were read");
    }
  }
  void write(std::uint64_t offset, std::uint64_t length, std::uint64_t seed, bool durable = false) {
    device_request writing(device, operation_kind::write, offset, length);
    for (std::uint64_t i = 0; i < length; ++i)
      reference[offset + i] = writing.payload()[i] = pattern(seed, i);
    writing.op.durable = durable;
    carry_out(writing);
    if (writing.failure()) FAIL("a write failed");
  }
  void compare_image(std::uint64_t offset, std::uint64_t length) {
    if (disk.image() == reference) return;
    CAPTURE(offset, length);
    FAIL("the image differs from the reference");
  }
};

// Offsets at which something may go wrong: around the multiples of the alignment and the places given.
std::vector<std::uint64_t> places_of_interest(std::uint64_t size, std::uint64_t direct_end,
                                              std::uint64_t alignment) {
  std::vector<std::uint64_t> places;
  for (const std::uint64_t place :
       {std::uint64_t{0}, alignment, 2 * alignment, 3 * alignment, direct_end, size}) {
    for (const std::uint64_t at : {place - 1, place, place + 1}) {
      if (at <= size) places.push_back(at);
    }
  }
  std::ranges::sort(places);
  places.erase(std::unique(places.begin(), places.end()), places.end());
  return places;
}

}  // namespace

TEST_CASE("every_range_of_a_small_device_is_read_and_written_exactly") {
  struct sample {
    std::uint64_t size;
    std::uint64_t direct_end;
    std::uint32_t alignment;
  };
  for (const sample& each : {sample{32, 32, 8}, sample{37, 32, 8}, sample{37, 24, 8}, sample{20, 16, 16},
                             sample{37, 0, 1}, sample{37, 37, 1}, sample{7, 0, 1}}) {
    device_world world(shape_of(each.size, each.direct_end, each.alignment), each.size);
    world.disk.short_counts(true);
    std::uint64_t seed = 0;
    for (std::uint64_t offset = 0; offset <= each.size; ++offset) {
      for (std::uint64_t length = 0; length <= each.size - offset; ++length) {
        world.read_and_compare(offset, length);
        ++seed;
        world.write(offset, length, seed, seed % 2 == 0);
        world.compare_image(offset, length);
      }
    }
  }
}

TEST_CASE("ranges_around_every_boundary_are_exact_for_each_alignment") {
  for (const std::uint32_t alignment : {512U, 4096U, 65536U}) {
    for (const std::uint64_t buffered : {0U, 1U, 511U}) {
      const std::uint64_t direct_end = 4 * std::uint64_t{alignment};
      const std::uint64_t size = direct_end + buffered;
      device_world world(shape_of(size, direct_end, alignment), alignment + buffered);
      std::uint64_t seed = 0;
      const auto places = places_of_interest(size, direct_end, alignment);
      for (const std::uint64_t begin : places) {
        for (const std::uint64_t end : places) {
          // Copies of large images are slow; half the pairs of the largest alignment do.
          if (end <= begin || (alignment == 65536 && (begin + end) % 2 == 0)) continue;
          world.write(begin, end - begin, ++seed);
          world.read_and_compare(begin, end - begin);
        }
      }
      world.compare_image(0, size);
    }
  }
}

TEST_CASE("an_aligned_request_needs_no_memory_but_its_payload") {
  fake_disk disk(shape_of(65536 + 100, 65536, 512), 1);
  const block_device device(disk.shape(), disk.file());
  for (const operation_kind kind : {operation_kind::read, operation_kind::write}) {
    const memory_layout layout = device.layout(kind, 512, 1024);
    CHECK(layout.size == 1024);
    CHECK(layout.payload == 0);
    const memory_layout up_to_the_end = device.layout(kind, 65024, 612);
    CHECK(up_to_the_end.size == 612);
    CHECK(up_to_the_end.payload == 0);
    const memory_layout buffered = device.layout(kind, 65540, 10);
    CHECK(buffered.size == 10);
    CHECK(buffered.payload == 0);
  }
}

TEST_CASE("an_unaligned_read_needs_room_for_its_blocks_and_a_write_for_scratch_as_well") {
  fake_disk disk(shape_of(65536, 65536, 512), 1);
  const block_device device(disk.shape(), disk.file());
  const memory_layout read = device.layout(operation_kind::read, 700, 900);
  CHECK(read.size == 1536);
  CHECK(read.payload == 188);
  const memory_layout write = device.layout(operation_kind::write, 700, 900);
  CHECK(write.size == 1024 + 1536);
  CHECK(write.payload == 1024 + 188);
}

TEST_CASE("an_aligned_write_reads_nothing") {
  device_world world(shape_of(65536, 65536, 512));
  world.write(1024, 2048, 1);
  CHECK(world.disk.count(io_op::read) == 0);
  CHECK(world.disk.count(io_op::write) == 1);
}

TEST_CASE("requests_of_no_length_succeed_and_do_nothing") {
  device_world world(shape_of(8192 + 5, 8192, 512));
  for (const std::uint64_t offset : {0U, 700U, 8192U, 8197U}) {
    for (const operation_kind kind :
         {operation_kind::read, operation_kind::write, operation_kind::trim, operation_kind::write_zeroes}) {
      device_request request(world.device, kind, offset, 0);
      world.carry_out(request);
      CHECK_FALSE(request.failure());
    }
  }
  CHECK(world.disk.log().empty());
}

TEST_CASE("a_request_may_be_submitted_again_and_forgets_its_failure") {
  device_world world(shape_of(8192, 8192, 512));
  device_request read(world.device, operation_kind::read, 100, 1000);
  world.disk.fail_nth(io_op::read, 0, EIO);
  world.carry_out(read);
  CHECK(read.failure() == input_output_error);
  world.carry_out(read);
  CHECK_FALSE(read.failure());
  CHECK(std::equal(read.payload().begin(), read.payload().end(), world.reference.begin() + 100));
}

TEST_CASE("destroying_an_operation_that_only_waits_for_its_turn_ends_the_process") {
  for (const operation_kind kind :
       {operation_kind::write, operation_kind::write_zeroes, operation_kind::flush}) {
    CHECK(aborts([kind] {
      device_world world(shape_of(8192, 8192, 512));
      device_request first(world.device, kind, 0, kind == operation_kind::flush ? 0 : 4096);
      std::optional<device_request> waiting(std::in_place, world.device, kind, first.op.offset,
                                            first.op.length);
      first.submit(world.queue);
      waiting->submit(world.queue);
      world.queue.drain();
      waiting.reset();
      ::_exit(0);  // before anything else can end it
    }));
  }
}

TEST_CASE("writes_to_one_place_land_in_the_order_they_were_submitted") {
  struct range {
    std::uint64_t offset;
    std::uint64_t length;
  };
  for (const range& each :
       {range{1024, 512}, range{1000, 100}, range{1000, 2000}, range{8100, 150}, range{8200, 50}}) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      device_world world(shape_of(8192 + 100, 8192, 512), seed);
      fake_queue other_queue(world.disk);
      std::deque<device_request> writes;
      for (unsigned i = 0; i < 10; ++i) {
        writes.emplace_back(world.device, operation_kind::write, each.offset, each.length);
        writes.back().filled_with(std::byte(i)).submit(i % 2 == 0 ? world.queue : other_queue);
      }
      run(world.disk, {&world.queue, &other_queue});
      for (const auto& write : writes) REQUIRE(write.is_done());
      std::fill_n(world.reference.begin() + static_cast<std::ptrdiff_t>(each.offset), each.length,
                  std::byte{9});
      world.compare_image(each.offset, each.length);
    }
  }
}

TEST_CASE("neighbours_in_one_block_do_not_lose_each_others_bytes") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    device_world world(shape_of(2048, 2048, 512), seed);
    fake_queue other_queue(world.disk);
    std::deque<device_request> writes;
    for (unsigned i = 0; i < 64; ++i) {
      writes.emplace_back(world.device, operation_kind::write, i * 32, 32);
      writes.back().filled_with(std::byte(i)).submit(i % 3 == 0 ? world.queue : other_queue);
      std::fill_n(world.reference.begin() + i * 32, 32, std::byte(i));
    }
    run(world.disk, {&world.queue, &other_queue});
    world.compare_image(0, 2048);
  }
}

TEST_CASE("an_aligned_write_does_not_vanish_under_an_unaligned_neighbour") {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    device_world world(shape_of(4096, 4096, 512), seed);
    fake_queue other_queue(world.disk);
    device_request unaligned(world.device, operation_kind::write, 100, 1000);
    device_request aligned(world.device, operation_kind::write, 1024, 512);
    unaligned.filled_with(std::byte{1}).submit(world.queue);
    world.queue.flush();
    for (std::uint64_t i = 0; i < seed % 7; ++i) {
      world.disk.step();
      world.queue.drain();
    }
    aligned.filled_with(std::byte{2}).submit(other_queue);
    run(world.disk, {&world.queue, &other_queue});
    std::fill_n(world.reference.begin() + 100, 1000, std::byte{1});
    std::fill_n(world.reference.begin() + 1024, 512, std::byte{2});
    world.compare_image(100, 1000);
  }
}

TEST_CASE("writes_that_share_no_block_are_in_flight_together") {
  device_world world(shape_of(8192, 8192, 512));
  device_request first(world.device, operation_kind::write, 0, 512);
  device_request second(world.device, operation_kind::write, 512, 512);
  device_request read(world.device, operation_kind::read, 0, 512);
  first.filled_with(std::byte{1}).submit(world.queue);
  second.filled_with(std::byte{2}).submit(world.queue);
  read.submit(world.queue);  // a read waits for nobody
  world.queue.flush();
  CHECK(world.disk.in_flight() == 3);
  run(world.disk, world.queue);
}

TEST_CASE("the_next_write_to_a_place_goes_on_after_a_failed_one") {
  device_world world(shape_of(8192, 8192, 512));
  device_request failing(world.device, operation_kind::write, 100, 1000);
  device_request waiting(world.device, operation_kind::write, 100, 1000);
  world.disk.fail_nth(io_op::write, 0, ENOSPC);
  failing.filled_with(std::byte{1}).submit(world.queue);
  waiting.filled_with(std::byte{2}).submit(world.queue);
  run(world.disk, world.queue);
  CHECK(failing.failure() == std::error_code(ENOSPC, std::system_category()));
  REQUIRE(waiting.is_done());
  CHECK_FALSE(waiting.failure());
  CHECK(world.disk.image()[100] == std::byte{2});
}

TEST_CASE("rule 27: a_write_that_was_answered_before_a_flush_came_survives_a_power_cut_after_it") {
  for (const auto& [offset, length] :
       {std::pair{512U, 512U}, std::pair{700U, 900U}, std::pair{8000U, 250U}}) {
    device_world world(shape_of(8192 + 100, 8192, 512));
    fake_queue other_queue(world.disk);
    world.write(offset, length, 5);
    CHECK(world.disk.stable() != world.reference);
    device_request flush(world.device, operation_kind::flush);
    flush.submit(other_queue);  // as another client's
    run(world.disk, {&world.queue, &other_queue});
    REQUIRE(flush.is_done());
    CHECK_FALSE(flush.failure());
    CHECK(world.disk.stable() == world.reference);
  }
}

TEST_CASE("rule 28: a_durable_write_survives_a_power_cut_without_a_flush") {
  for (const auto& [offset, length] : {std::pair{512U, 512U}, std::pair{700U, 900U}, std::pair{8000U, 250U},
                                       std::pair{8192U, 10U}, std::pair{7680U, 612U}}) {
    device_world world(shape_of(8192 + 100, 8192, 512));
    world.disk.short_counts(true);
    world.write(offset, length, 5, true);
    CHECK(world.disk.stable() == world.reference);
    CHECK(world.disk.count(io_op::sync) == 0);
  }
}

TEST_CASE("rule 29: a_failed_sync_is_told_to_every_client_once_on_its_next_flush") {
  device_world world(shape_of(8192, 8192, 512));
  std::vector<sync_witness> witnesses(3, world.device.new_witness());
  world.disk.fail_nth(io_op::sync, 0, EIO);
  CHECK(world.flush(&witnesses[0]) == input_output_error);
  CHECK_FALSE(world.flush(&witnesses[0]));
  CHECK(world.flush(&witnesses[1]) == input_output_error);
  CHECK_FALSE(world.flush(&witnesses[1]));
  CHECK_FALSE(world.flush(&witnesses[0]));

  // A durable change tells as well.
  device_request write(world.device, operation_kind::write, 0, 512);
  write.filled_with(std::byte{1});
  write.op.durable = true;
  write.op.witness = &witnesses[2];
  world.carry_out(write);
  CHECK(write.failure() == input_output_error);
  world.carry_out(write);
  CHECK_FALSE(write.failure());

  sync_witness newcomer = world.device.new_witness();
  CHECK_FALSE(world.flush(&newcomer));
}

TEST_CASE("a_durable_zeroing_tells_of_a_failed_sync_too") {
  for (const operation_kind kind : {operation_kind::write_zeroes, operation_kind::trim}) {
    device_world world(shape_of(8192, 8192, 512));
    sync_witness witness = world.device.new_witness();
    world.fail_a_sync();
    device_request request(world.device, kind, 0, 4096);
    request.op.witness = &witness;
    world.carry_out(request);
    CHECK_FALSE(request.failure());  // not durable: promises nothing, tells nothing
    request.op.durable = true;
    world.carry_out(request);
    CHECK(request.failure() == input_output_error);
    world.carry_out(request);
    CHECK_FALSE(request.failure());
  }
}

TEST_CASE("a_sync_that_fails_for_want_of_room_does_not_hide_an_earlier_loss") {
  device_world world(shape_of(8192, 8192, 512));
  sync_witness witness = world.device.new_witness();
  world.fail_a_sync();
  world.disk.fail_nth(io_op::sync, 0, ENOSPC);
  device_request flush(world.device, operation_kind::flush);
  flush.op.witness = &witness;
  world.carry_out(flush);
  CHECK(flush.failure() == input_output_error);
  world.carry_out(flush);
  CHECK_FALSE(flush.failure());
}

TEST_CASE("a_failed_durable_write_is_told_on_the_next_flush_of_the_others") {
  device_world world(shape_of(8192, 8192, 512));
  sync_witness writer = world.device.new_witness();
  sync_witness other = world.device.new_witness();
  world.disk.fail_nth(io_op::write, 0, EIO);
  device_request write(world.device, operation_kind::write, 0, 512);
  write.filled_with(std::byte{1});
  write.op.durable = true;
  write.op.witness = &writer;
  world.carry_out(write);
  CHECK(write.failure() == input_output_error);
  device_request flush(world.device, operation_kind::flush);
  flush.op.witness = &writer;
  world.carry_out(flush);
  CHECK_FALSE(flush.failure());  // heard with the write
  flush.op.witness = &other;
  world.carry_out(flush);
  CHECK(flush.failure() == input_output_error);
}

TEST_CASE("a_durable_write_that_fails_by_itself_does_not_stand_for_the_news_of_a_failed_sync") {
  for (const int error : {ENOSPC, EDQUOT}) {
    device_world world(shape_of(8192, 8192, 512));
    sync_witness witness = world.device.new_witness();
    world.fail_a_sync();
    world.disk.fail_nth(io_op::write, 0, error);
    device_request write(world.device, operation_kind::write, 0, 512);
    write.filled_with(std::byte{1});
    write.op.durable = true;
    write.op.witness = &witness;
    world.carry_out(write);
    CHECK(write.failure() == std::error_code(error, std::system_category()));
    device_request flush(world.device, operation_kind::flush);
    flush.op.witness = &witness;
    world.carry_out(flush);
    CHECK(flush.failure() == input_output_error);
    world.carry_out(flush);
    CHECK_FALSE(flush.failure());
  }
}

TEST_CASE("a_durable_write_that_changed_nothing_is_nobody_elses_failed_sync") {
  struct sample {
    io_op fails;
    int error;
    std::uint64_t offset, length;
    bool told;  // on the flushes of others
  };
  for (const sample& each :
       {sample{io_op::write, ENOSPC, 0, 512, false}, sample{io_op::write, EDQUOT, 0, 512, false},
        sample{io_op::write, EFBIG, 0, 512, false}, sample{io_op::write, ENOSPC, 100, 50, false},
        sample{io_op::read, EIO, 100, 50, false}, sample{io_op::write, EIO, 100, 50, true},
        // A page of the page cache may find no room when it is synced.
        sample{io_op::buffered_write, ENOSPC, 8192, 10, true}}) {
    CAPTURE(int(each.fails), each.error, each.offset);
    device_world world(shape_of(8192 + 100, 8192, 512));
    sync_witness other = world.device.new_witness();
    world.disk.fail_nth(each.fails, 0, each.error);
    device_request write(world.device, operation_kind::write, each.offset, each.length);
    write.filled_with(std::byte{1});
    write.op.durable = true;
    world.carry_out(write);
    CHECK(write.failure() == std::error_code(each.error, std::system_category()));
    device_request flush(world.device, operation_kind::flush);
    flush.op.witness = &other;
    world.carry_out(flush);
    CHECK(bool(flush.failure()) == each.told);
  }
}

TEST_CASE("a_write_to_a_disk_that_was_taken_away_does_not_fail_for_want_of_room") {
  struct sample {
    std::uint64_t size_now;
    bool is_disk;
    int error;
  };
  // Whoever has no room may find some; whose disk is gone will not.
  for (const sample& each : {sample{0, true, EIO}, sample{8192, true, ENOSPC}, sample{0, false, ENOSPC}}) {
    CAPTURE(each.size_now, each.is_disk);
    geometry shape = shape_of(8192, 8192, 512);
    shape.is_block_device = each.is_disk;
    device_world world(shape);
    const temporary_file now(each.size_now);
    const file_descriptor as_served(::dup2(now.buffered(), fake_disk::direct_fd));
    REQUIRE(as_served);
    sync_witness other = world.device.new_witness();
    world.disk.fail_nth(io_op::write, 0, ENOSPC);
    device_request write(world.device, operation_kind::write, 4096, 4096);
    write.filled_with(std::byte{1});
    write.op.durable = true;
    world.carry_out(write);
    CHECK(write.failure() == std::error_code(each.error, std::system_category()));
    device_request flush(world.device, operation_kind::flush);
    flush.op.witness = &other;
    world.carry_out(flush);
    CHECK(bool(flush.failure()) == (each.error == EIO));
  }
}

TEST_CASE("a_failed_plain_write_fails_no_flush") {
  device_world world(shape_of(8192, 8192, 512));
  sync_witness witness = world.device.new_witness();
  world.disk.fail_nth(io_op::write, 0, ENOSPC);
  device_request write(world.device, operation_kind::write, 0, 512);
  write.filled_with(std::byte{1});
  write.op.witness = &witness;
  world.carry_out(write);
  CHECK(write.failure());
  device_request flush(world.device, operation_kind::flush);
  flush.op.witness = &witness;
  world.carry_out(flush);
  CHECK_FALSE(flush.failure());
}

namespace {

// One of each kind of request, with neighbours that share its blocks, each on one of two queues.
struct mixed_load {
  geometry shape;
  fake_disk disk;
  fake_queue first_queue{disk};
  fake_queue second_queue{disk};
  block_device device;
  std::deque<device_request> requests;

  explicit mixed_load(std::uint64_t seed)
      : shape(geometry_of()), disk(shape, seed), device(shape, disk.file()) {}

  static geometry geometry_of() {
    geometry shape = shape_of(16384 + 100, 16384, 512);
    shape.can_punch_hole = shape.can_zero_range = true;
    return shape;
  }
  void add(operation_kind kind, std::uint64_t offset, std::uint64_t length, bool durable = false) {
    device_request& request = requests.emplace_back(device, kind, offset, length);
    if (kind == operation_kind::write) request.filled_with(static_cast<std::byte>(requests.size()));
    request.op.durable = durable;
  }
  void go() {
    add(operation_kind::write, 512, 1024);
    add(operation_kind::write, 100, 3000);
    add(operation_kind::write, 1000, 24, true);
    add(operation_kind::read, 300, 5000);
    add(operation_kind::write_zeroes, 3000, 7000);
    add(operation_kind::flush, 0, 0);
    add(operation_kind::write, 16000, 484);
    add(operation_kind::read, 16000, 484);
    add(operation_kind::trim, 0, 8192, true);
    add(operation_kind::write, 16390, 50, true);
    add(operation_kind::write_zeroes, 12000, 4400, true);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      requests[i].submit(i % 2 == 0 ? first_queue : second_queue);
    }
    run(disk, {&first_queue, &second_queue});
  }
  // Nothing is held and nothing is left over: everything can be written and read once more.
  bool is_usable() {
    device_request write(device, operation_kind::write, 0, shape.size);
    write.filled_with(std::byte{0x42}).submit(first_queue);
    run(disk, {&first_queue, &second_queue});
    const auto image = disk.image();
    return write.is_done() && !write.failure() &&
           std::ranges::all_of(image, [](std::byte each) { return each == std::byte{0x42}; });
  }
};

}  // namespace

TEST_CASE("a_failure_of_any_one_operation_reaches_those_it_concerns_and_leaves_nothing_behind") {
  for (const int error : {EIO, ENOSPC}) {
    std::uint64_t n = 0;
    for (;; ++n) {
      mixed_load load(n);
      load.disk.fail_nth_of_any(n, error);
      load.go();
      CAPTURE(n, error);
      std::size_t failed = 0;
      for (const auto& request : load.requests) {
        REQUIRE(request.times_done() == 1);
        if (!request.failure()) continue;
        ++failed;
        REQUIRE(request.failure() == std::error_code(error, std::system_category()));
      }
      REQUIRE(load.first_queue.outstanding() + load.second_queue.outstanding() == 0);
      REQUIRE(load.disk.violations().empty());
      const bool all_went_well = load.disk.failures_injected() == 0;
      if (all_went_well) REQUIRE(failed == 0);
      // A sync may have been for several requests; anything else belongs to one.
      if (!all_went_well && load.disk.count(io_op::sync) == 0) REQUIRE(failed == 1);
      if (!all_went_well) REQUIRE(failed >= 1);
      if (all_went_well) break;
      REQUIRE(load.is_usable());
    }
    CHECK(n > 20);
  }
}

TEST_CASE("a_failure_of_one_kind_of_operation_fails_only_requests_that_use_it") {
  struct sample {
    io_op op;
    std::vector<std::size_t> may_fail;  // which of the mixed load
  };
  // A durable write that fails is a failed sync, and what durable trims and zeroings have done may be lost.
  const std::vector<std::size_t> go_in_steps{8, 10};
  const std::vector<sample> samples{{io_op::read, {1, 2, 3, 4, 6, 7, 10}},
                                    {io_op::write, {0, 1, 2, 4, 6, 8, 10}},
                                    {io_op::buffered_read, {7}},
                                    {io_op::buffered_write, {6, 8, 9, 10}},
                                    {io_op::sync, {5, 8, 10}},
                                    {io_op::punch_hole, {4, 8, 10}}};
  for (const sample& each : samples) {
    for (std::uint64_t n = 0;; ++n) {
      mixed_load load(n);
      load.disk.fail_nth(each.op, n, EIO);
      load.go();
      if (load.disk.failures_injected() == 0) {
        CHECK(n > 0);
        break;
      }
      std::size_t failed = 0, failed_at_once = 0;
      for (std::size_t i = 0; i < load.requests.size(); ++i) {
        if (!load.requests[i].failure()) continue;
        ++failed;
        if (std::ranges::find(go_in_steps, i) == go_in_steps.end()) ++failed_at_once;
        CAPTURE(name_of(each.op), n, i);
        REQUIRE(std::ranges::find(each.may_fail, i) != each.may_fail.end());
      }
      REQUIRE(failed >= 1);
      if (each.op != io_op::sync) REQUIRE(failed_at_once <= 1);
      REQUIRE(load.is_usable());
    }
  }
}
