#include "storage/zeroing.hpp"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "tests/storage/device_request.hpp"
#include "tests/storage/fake_queue.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr std::uint64_t kib = 1024;

geometry capable_shape(std::uint64_t size = 64 * kib) {
  return {.size = size,
          .direct_end = size,
          .alignment = 512,
          .zeroing_granularity = 4096,
          .can_punch_hole = true,
          .can_zero_range = true};
}

struct zeroing_world {
  fake_disk disk;
  fake_queue queue{disk};
  block_device device;
  std::vector<std::byte> before;

  explicit zeroing_world(const geometry& shape, std::uint64_t seed = 1)
      : disk(shape, seed), device(shape, disk.file()), before(shape.size, std::byte{0x55}) {
    disk.fill(before);
  }
  ~zeroing_world() {
    CHECK(disk.violations() == std::vector<std::string>{});
    CHECK(queue.outstanding() == 0);
  }

  void carry_out(device_request& request) {
    request.submit(queue);
    CHECK_FALSE(request.was_done_inside_submit());
    run(disk, queue);
    REQUIRE(request.times_done() == 1);
  }
  std::error_code zero(std::uint64_t offset, std::uint64_t length) {
    device_request request(device, operation_kind::write_zeroes, offset, length);
    carry_out(request);
    return request.failure();
  }
  // The image is as before, but for zeroes in this range.
  bool is_zeroed(std::uint64_t offset, std::uint64_t length) const {
    std::vector<std::byte> expected = before;
    std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
    return disk.image() == expected;
  }
  std::vector<io_op> steps() const {
    std::vector<io_op> ops;
    for (const auto& record : disk.log()) ops.push_back(record.op);
    return ops;
  }
  // Every range can be written again, so nothing holds a lock.
  void check_unlocked() {
    device_request write(device, operation_kind::write, 0, device.shape().size);
    write.filled_with(std::byte{0x66});
    carry_out(write);
    CHECK_FALSE(write.failure());
  }
};

const std::error_code unsupported = std::make_error_code(std::errc::operation_not_supported);

}  // namespace

TEST_CASE("zeroing_whole_blocks_is_one_hole") {
  zeroing_world world(capable_shape());
  CHECK_FALSE(world.zero(8192, 16384));
  CHECK(world.steps() == std::vector{io_op::punch_hole});
  CHECK(world.is_zeroed(8192, 16384));
}

TEST_CASE("rule 30: zeroing_that_keeps_space_allocated_makes_no_hole") {
  zeroing_world world(capable_shape());
  device_request request(world.device, operation_kind::write_zeroes, 8192, 16384);
  request.op.keep_allocated = true;
  world.carry_out(request);
  CHECK_FALSE(request.failure());
  CHECK(world.steps() == std::vector{io_op::zero_range});
  CHECK(world.is_zeroed(8192, 16384));
}

TEST_CASE("zeroing_punches_the_inner_blocks_and_then_writes_the_edges") {
  zeroing_world world(capable_shape());
  CHECK_FALSE(world.zero(1000, 20000));
  const auto log = world.disk.log();
  REQUIRE_FALSE(log.empty());
  CHECK(log[0].op == io_op::punch_hole);
  CHECK(log[0].offset == 4096);
  CHECK(log[0].length == 16384);
  CHECK(world.disk.count(io_op::write) == 2);
  CHECK(world.is_zeroed(1000, 20000));
}

TEST_CASE("zeroing_is_exact_for_every_offset_and_length") {
  constexpr std::uint64_t size = 70;
  const geometry fast{.size = size,
                      .direct_end = 64,
                      .alignment = 8,
                      .zeroing_granularity = 16,
                      .can_punch_hole = true,
                      .can_zero_range = true};
  geometry slow = fast;
  slow.can_punch_hole = slow.can_zero_range = false;
  for (const geometry& shape : {fast, slow}) {
    for (std::uint64_t offset = 0; offset <= size; ++offset) {
      for (std::uint64_t length = 0; length <= size - offset; ++length) {
        zeroing_world world(shape, offset * 71 + length);
        world.disk.short_counts(true);
        const std::error_code failure = world.zero(offset, length);
        CAPTURE(shape.can_punch_hole, offset, length);
        REQUIRE_FALSE(failure);
        REQUIRE(world.is_zeroed(offset, length));
      }
    }
  }
}

TEST_CASE("zeroing_without_support_writes_in_bounded_steps") {
  geometry shape = capable_shape(5 << 20);
  shape.can_punch_hole = shape.can_zero_range = false;
  zeroing_world world(shape);
  CHECK_FALSE(world.zero(100, (5 << 20) - 200));
  CHECK(world.is_zeroed(100, (5 << 20) - 200));
  CHECK(world.disk.count(io_op::punch_hole) == 0);
  CHECK(world.disk.count(io_op::zero_range) == 0);
  CHECK(world.disk.count(io_op::write) >= 5);
  for (const auto& record : world.disk.log()) CHECK(record.length <= zeroing::write_length_max);
}

TEST_CASE("a_refused_hole_falls_back_to_zeroing_in_place_and_then_to_writing") {
  for (const int error : {EOPNOTSUPP, ENOSYS, ENOTTY, ENODEV}) {
    zeroing_world world(capable_shape());
    world.disk.refuse_all(io_op::punch_hole, error);
    CHECK_FALSE(world.zero(4096, 8192));
    CHECK(world.steps() == std::vector{io_op::punch_hole, io_op::zero_range});
    CHECK(world.is_zeroed(4096, 8192));
    world.check_unlocked();
  }
  zeroing_world world(capable_shape());
  world.disk.refuse_all(io_op::punch_hole, EOPNOTSUPP);
  world.disk.refuse_all(io_op::zero_range, EOPNOTSUPP);
  CHECK_FALSE(world.zero(4096, 8192));
  CHECK(world.steps() == std::vector{io_op::punch_hole, io_op::zero_range, io_op::write});
  CHECK(world.is_zeroed(4096, 8192));
  world.check_unlocked();
}

TEST_CASE("a_refusal_is_remembered") {
  zeroing_world world(capable_shape());
  world.disk.refuse_all(io_op::punch_hole, EOPNOTSUPP);
  world.disk.refuse_all(io_op::zero_range, EOPNOTSUPP);
  CHECK_FALSE(world.zero(4096, 8192));
  world.disk.forget_log();
  CHECK_FALSE(world.zero(16384, 8192));
  CHECK(world.steps() == std::vector{io_op::write});
  world.disk.forget_log();

  device_request trim(world.device, operation_kind::trim, 0, 32768);
  world.carry_out(trim);
  CHECK_FALSE(trim.failure());
  CHECK(world.steps().empty());
}

TEST_CASE("any_other_failure_of_a_hole_is_told_and_nothing_else_is_tried") {
  zeroing_world world(capable_shape());
  world.disk.fail_nth(io_op::punch_hole, 0, EIO);
  CHECK(world.zero(1000, 20000) == std::error_code(EIO, std::system_category()));
  CHECK(world.steps() == std::vector{io_op::punch_hole});
  world.check_unlocked();
  CHECK_FALSE(world.zero(0, 4096));
  CHECK(world.disk.log().back().op == io_op::punch_hole);
}

TEST_CASE("rule 30: zeroing_that_must_be_fast_is_refused_before_anything_is_changed") {
  geometry shape = capable_shape();
  shape.can_punch_hole = shape.can_zero_range = false;
  zeroing_world world(shape);
  device_request request(world.device, operation_kind::write_zeroes, 1000, 20000);
  request.op.only_if_fast = true;
  world.carry_out(request);
  CHECK(request.failure() == unsupported);
  CHECK(world.steps().empty());
  CHECK(world.disk.image() == world.before);
  world.check_unlocked();
}

TEST_CASE("zeroing_that_must_be_fast_and_is_refused_by_the_file_system_changes_nothing") {
  for (const bool keep_allocated : {false, true}) {
    zeroing_world world(capable_shape());
    world.disk.refuse_all(io_op::punch_hole, EOPNOTSUPP);
    world.disk.refuse_all(io_op::zero_range, EOPNOTSUPP);
    device_request request(world.device, operation_kind::write_zeroes, 1000, 20000);
    request.op.only_if_fast = true;
    request.op.keep_allocated = keep_allocated;
    world.carry_out(request);
    CHECK(request.failure() == unsupported);
    CHECK(world.disk.count(io_op::write) == 0);
    CHECK(world.disk.image() == world.before);
    world.check_unlocked();
  }
}

// The kernel would write zeroes itself for a disk that has no command for them, and call that zeroing in
// place.
TEST_CASE(
    "rule 30: a_disk_that_turns_out_to_have_no_zeroes_of_its_own_is_not_asked_for_them_in_another_way") {
  geometry shape = capable_shape();
  shape.is_block_device = true;
  zeroing_world world(shape);
  world.disk.refuse_all(io_op::punch_hole, EOPNOTSUPP);
  device_request fast(world.device, operation_kind::write_zeroes, 0, 16 * kib);
  fast.op.only_if_fast = true;
  world.carry_out(fast);
  CHECK(fast.failure() == std::errc::operation_not_supported);
  CHECK(world.disk.image() == world.before);
  CHECK_FALSE(world.zero(0, 16 * kib));
  CHECK(world.steps() == std::vector<io_op>{io_op::punch_hole, io_op::write});
  CHECK(world.is_zeroed(0, 16 * kib));
}

TEST_CASE("zeroing_that_must_be_fast_uses_what_is_fast") {
  zeroing_world world(capable_shape());
  world.disk.refuse_all(io_op::punch_hole, EOPNOTSUPP);
  device_request request(world.device, operation_kind::write_zeroes, 1000, 20000);
  request.op.only_if_fast = true;
  world.carry_out(request);
  CHECK_FALSE(request.failure());
  CHECK(world.is_zeroed(1000, 20000));
}

TEST_CASE("rule 30: only_a_request_that_must_be_fast_is_ever_refused_as_unsupported") {
  for (const bool keep_allocated : {false, true}) {
    geometry shape = capable_shape();
    shape.can_punch_hole = shape.can_zero_range = false;
    zeroing_world world(shape);
    device_request request(world.device, operation_kind::write_zeroes, 0, 20000);
    request.op.keep_allocated = keep_allocated;
    world.carry_out(request);
    CHECK_FALSE(request.failure());
    CHECK(world.is_zeroed(0, 20000));
  }
}

TEST_CASE("rule 31: a_trim_touches_only_the_whole_blocks_inside_it") {
  zeroing_world world(capable_shape());
  device_request trim(world.device, operation_kind::trim, 1000, 20000);
  world.carry_out(trim);
  CHECK_FALSE(trim.failure());
  CHECK(world.steps() == std::vector{io_op::punch_hole});
  CHECK(world.is_zeroed(4096, 16384));

  device_request small(world.device, operation_kind::trim, 30000, 3000);
  world.disk.forget_log();
  world.carry_out(small);
  CHECK_FALSE(small.failure());
  CHECK(world.steps().empty());
}

TEST_CASE("a_trim_of_a_disk_discards_and_falls_back_to_a_hole") {
  geometry shape = capable_shape();
  shape.is_block_device = true;
  shape.can_discard = true;
  zeroing_world world(shape);
  device_request trim(world.device, operation_kind::trim, 4096, 8192);
  world.carry_out(trim);
  CHECK(world.steps() == std::vector{io_op::discard});
  CHECK(world.disk.image()[4096] == fake_disk::discarded);

  world.disk.forget_log();
  world.disk.refuse_all(io_op::discard, EOPNOTSUPP);
  device_request second(world.device, operation_kind::trim, 16384, 8192);
  world.carry_out(second);
  CHECK_FALSE(second.failure());
  CHECK(world.steps() == std::vector{io_op::discard, io_op::punch_hole});
  world.check_unlocked();
}

TEST_CASE("zeroing_a_disk_never_discards") {
  geometry shape = capable_shape();
  shape.can_discard = true;
  for (const bool punch : {true, false}) {
    shape.can_punch_hole = punch;
    zeroing_world world(shape);
    CHECK_FALSE(world.zero(0, 20000));
    CHECK(world.disk.count(io_op::discard) == 0);
    CHECK(world.is_zeroed(0, 20000));
  }
}

TEST_CASE("a_trim_that_cannot_be_done_succeeds_and_changes_nothing") {
  geometry shape = capable_shape();
  shape.can_punch_hole = shape.can_zero_range = false;
  zeroing_world world(shape);
  device_request trim(world.device, operation_kind::trim, 0, 32768);
  world.carry_out(trim);
  CHECK_FALSE(trim.failure());
  CHECK(world.steps().empty());
  CHECK(world.disk.image() == world.before);
}

TEST_CASE("rule 28: durable_zeroing_and_durable_trims_end_after_a_sync_of_all_they_did") {
  for (const operation_kind kind : {operation_kind::write_zeroes, operation_kind::trim}) {
    zeroing_world world(capable_shape());
    device_request request(world.device, kind, 1000, 20000);
    request.op.durable = true;
    world.carry_out(request);
    CHECK_FALSE(request.failure());
    CHECK(world.steps().back() == io_op::sync);
    CHECK(world.disk.count(io_op::sync) == 1);
    CHECK(world.disk.stable() == world.disk.image());
  }
}

TEST_CASE("a_durable_zeroing_whose_sync_fails_fails") {
  zeroing_world world(capable_shape());
  world.disk.fail_nth(io_op::sync, 0, EIO);
  device_request request(world.device, operation_kind::write_zeroes, 4096, 8192);
  request.op.durable = true;
  world.carry_out(request);
  CHECK(request.failure() == std::error_code(EIO, std::system_category()));
  world.check_unlocked();
}

TEST_CASE("a_failed_edge_is_told") {
  for (const std::uint64_t n : {0U, 1U}) {
    zeroing_world world(capable_shape());
    world.disk.fail_nth(io_op::write, n, ENOSPC);
    CHECK(world.zero(1000, 20000) == std::error_code(ENOSPC, std::system_category()));
    world.check_unlocked();
  }
}

TEST_CASE("edges_in_the_buffered_end_of_a_file_are_zeroed") {
  geometry shape = capable_shape(20000);
  shape.direct_end = 16384;
  zeroing_world world(shape);
  CHECK_FALSE(world.zero(5000, 15000));
  CHECK(world.is_zeroed(5000, 15000));
  CHECK(world.disk.count(io_op::buffered_write) == 1);
}

TEST_CASE("a_file_without_direct_access_is_zeroed_through_the_page_cache") {
  geometry shape = capable_shape(20000);
  shape.direct_end = 0;
  shape.alignment = 1;
  zeroing_world world(shape);
  CHECK_FALSE(world.zero(5000, 15000));
  CHECK(world.is_zeroed(5000, 15000));
  CHECK(world.disk.count(io_op::punch_hole) == 1);
  shape.can_punch_hole = shape.can_zero_range = false;
  zeroing_world plain(shape);
  CHECK_FALSE(plain.zero(5000, 15000));
  CHECK(plain.is_zeroed(5000, 15000));
}

namespace {

// Keeps lengths no memory could hold: every step succeeds at once and is only written down.
class obliging_queue final : public io_queue {
 public:
  void submit(io_request& request) override {
    steps.push_back({request.op, request.offset, request.length, request.durable});
    request.result = 0;
    waiting_.push_back(request);
  }
  void flush() override {}
  void post(io_request& request) override { waiting_.push_back(request); }
  void drain() {
    while (io_request* const request = waiting_.pop_front()) request->hook(*request);
  }
  std::vector<fake_disk::record> steps;

 private:
  io_list waiting_;
};

}  // namespace

TEST_CASE("zeroing_of_several_gibibytes_goes_in_bounded_steps_that_leave_nothing_out") {
  constexpr std::uint64_t size = std::uint64_t{1} << 40;
  geometry shape = capable_shape();
  shape.size = shape.direct_end = size;
  block_device device(shape, {.direct = fake_disk::direct_fd, .buffered = fake_disk::buffered_fd});
  obliging_queue queue;
  constexpr std::uint64_t offset = (std::uint64_t{1} << 33) + 4096;
  constexpr std::uint64_t length = (std::uint64_t{1} << 32) - 4096;
  device_request request(device, operation_kind::write_zeroes, offset, length);
  request.submit(queue);
  queue.drain();
  REQUIRE(request.is_done());
  CHECK_FALSE(request.failure());
  std::uint64_t expected = offset;
  for (const auto& step : queue.steps) {
    CHECK(step.op == io_op::punch_hole);
    CHECK(step.offset == expected);
    CHECK(step.length <= zeroing::step_length_max);
    expected += step.length;
  }
  CHECK(expected == offset + length);
}

TEST_CASE("a_write_gets_its_turn_between_the_steps_of_a_long_zeroing") {
  geometry shape = capable_shape(4 << 20);
  shape.can_punch_hole = shape.can_zero_range = false;
  zeroing_world world(shape);
  device_request zeroes(world.device, operation_kind::write_zeroes, 0, 4 << 20);
  device_request write(world.device, operation_kind::write, 0, 4096);
  write.filled_with(std::byte{1});
  zeroes.submit(world.queue);
  world.queue.drain();
  write.submit(world.queue);
  while (!write.is_done()) {
    REQUIRE(world.disk.step());
    world.queue.drain();
  }
  CHECK_FALSE(zeroes.is_done());
  run(world.disk, world.queue);
  CHECK(zeroes.is_done());
  CHECK(world.disk.image()[0] == std::byte{1});
}
