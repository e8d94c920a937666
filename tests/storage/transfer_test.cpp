#include "storage/transfer.hpp"

#include <cerrno>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/storage/fake_queue.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr geometry shape{.size = 16384, .direct_end = 8192, .alignment = 512};

struct transfer_world {
  fake_disk disk;
  fake_queue queue{disk};
  transfer moving;
  std::vector<std::byte> content{shape.size};
  alignas(512) std::byte memory[8192]{};
  int calls = 0;
  std::error_code failure;

  explicit transfer_world(std::uint64_t seed = 1) : disk(shape, seed) {
    for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<std::byte>(i * 7 + i / 256);
    disk.fill(content);
  }

  void start(io_op op, std::uint64_t offset, std::uint64_t length, bool durable = false) {
    const bool direct = op == io_op::read || op == io_op::write;
    moving.start(queue,
                 {.op = op,
                  .fd = direct ? fake_disk::direct_fd : fake_disk::buffered_fd,
                  .offset = offset,
                  .length = length,
                  .alignment = direct ? shape.alignment : 1,
                  .memory = memory,
                  .durable = durable},
                 this, [](void* owner, std::error_code outcome) {
                   auto& world = *static_cast<transfer_world*>(owner);
                   ++world.calls;
                   world.failure = outcome;
                 });
  }
  void finish() { run(disk, queue); }

  bool memory_is_content(std::uint64_t offset, std::uint64_t length) const {
    return std::equal(memory, memory + length, content.begin() + static_cast<std::ptrdiff_t>(offset));
  }
};

}  // namespace

TEST_CASE("a_transfer_calls_back_once_and_not_inside_start") {
  transfer_world world;
  world.start(io_op::read, 512, 1024);
  world.queue.flush();
  CHECK(world.calls == 0);
  world.finish();
  CHECK(world.calls == 1);
  CHECK_FALSE(world.failure);
  CHECK(world.memory_is_content(512, 1024));
  CHECK(world.disk.violations().empty());
}

TEST_CASE("a_short_read_is_finished") {
  transfer_world world;
  world.disk.cut_next(io_op::read, 1024);
  world.disk.cut_next(io_op::read, 512);
  world.start(io_op::read, 0, 4096);
  world.finish();
  CHECK(world.calls == 1);
  CHECK_FALSE(world.failure);
  CHECK(world.memory_is_content(0, 4096));
  const auto log = world.disk.log();
  REQUIRE(log.size() == 3);
  CHECK(log[1].offset == 1024);
  CHECK(log[1].length == 3072);
  CHECK(log[2].offset == 1536);
  CHECK(log[2].length == 2560);
}

TEST_CASE("a_short_write_is_finished_and_stays_durable") {
  transfer_world world;
  std::fill(std::begin(world.memory), std::end(world.memory), std::byte{0x77});
  world.disk.cut_next(io_op::write, 512);
  world.start(io_op::write, 1024, 2048, true);
  world.finish();
  CHECK(world.calls == 1);
  CHECK_FALSE(world.failure);
  for (const auto& record : world.disk.log()) CHECK(record.durable);
  const auto stable = world.disk.stable();
  for (std::size_t i = 1024; i < 3072; ++i) REQUIRE(stable[i] == std::byte{0x77});
  CHECK(stable[1023] == world.content[1023]);
  CHECK(stable[3072] == world.content[3072]);
}

TEST_CASE("a_short_count_inside_a_block_asks_for_that_block_again") {
  transfer_world world;
  world.disk.cut_next(io_op::read, 700);
  world.start(io_op::read, 0, 2048);
  world.finish();
  CHECK_FALSE(world.failure);
  CHECK(world.memory_is_content(0, 2048));
  const auto log = world.disk.log();
  REQUIRE(log.size() == 2);
  CHECK(log[1].offset == 512);
  CHECK(log[1].length == 1536);
  CHECK(world.disk.violations().empty());
}

TEST_CASE("a_buffered_transfer_goes_on_at_any_byte") {
  transfer_world world;
  world.disk.cut_next(io_op::buffered_read, 1);
  world.disk.cut_next(io_op::buffered_read, 700);
  world.start(io_op::buffered_read, 9001, 1234);
  world.finish();
  CHECK_FALSE(world.failure);
  CHECK(world.memory_is_content(9001, 1234));
  REQUIRE(world.disk.log().size() == 3);
  CHECK(world.disk.log()[2].offset == 9001 + 701);
}

TEST_CASE("no_progress_is_an_input_output_error") {
  for (const io_op op : {io_op::read, io_op::write}) {
    for (const std::uint64_t transferred : {0U, 1U, 511U}) {
      transfer_world world;
      world.disk.cut_next(op, transferred);
      world.start(op, 0, 1024);
      world.finish();
      CAPTURE(name_of(op), transferred);
      CHECK(world.calls == 1);
      CHECK(world.failure == std::error_code(EIO, std::system_category()));
      CHECK(world.disk.log().size() == 1);
    }
  }
}

TEST_CASE("no_progress_after_some_is_an_input_output_error_too") {
  transfer_world world;
  world.disk.cut_next(io_op::read, 512);
  world.disk.cut_next(io_op::read, 0);
  world.start(io_op::read, 0, 2048);
  world.finish();
  CHECK(world.calls == 1);
  CHECK(world.failure == std::error_code(EIO, std::system_category()));
}

TEST_CASE("an_error_ends_a_transfer_as_it_came") {
  for (const int error : {EIO, ENOSPC, EDQUOT}) {
    transfer_world world;
    world.disk.cut_next(io_op::write, 512);
    world.disk.fail_nth(io_op::write, 1, error);
    world.start(io_op::write, 0, 4096);
    world.finish();
    CHECK(world.calls == 1);
    CHECK(world.failure == std::error_code(error, std::system_category()));
    CHECK(world.disk.log().size() == 2);
  }
}

TEST_CASE("transfers_arrive_whole_however_they_are_cut") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    transfer_world world(seed);
    world.disk.short_counts(true);
    world.start(io_op::read, 512, 7680);
    world.finish();
    CAPTURE(seed);
    REQUIRE(world.calls == 1);
    REQUIRE_FALSE(world.failure);
    REQUIRE(world.memory_is_content(512, 7680));
    REQUIRE(world.disk.violations().empty());
  }
}

namespace {

// Pretends that everything asked for was transferred, so that lengths need no memory behind them.
class boastful_queue final : public io_queue {
 public:
  void submit(io_request& request) override {
    asked.push_back({request.offset, request.length});
    request.result = static_cast<std::int64_t>(request.length);
    waiting.push_back(&request);
  }
  void flush() override {}
  void post(io_request&) override {}
  void drain() {
    while (!waiting.empty()) {
      io_request* const request = waiting.back();
      waiting.pop_back();
      request->hook(*request);
    }
  }
  struct piece {
    std::uint64_t offset;
    std::uint64_t length;
  };
  std::vector<piece> asked;
  std::vector<io_request*> waiting;
};

}  // namespace

TEST_CASE("more_than_the_kernel_transfers_at_once_is_asked_for_in_aligned_pieces") {
  boastful_queue queue;
  transfer moving;
  int calls = 0;
  constexpr std::uint64_t length = (std::uint64_t{5} << 30) + 512;
  std::byte memory{};
  moving.start(queue,
               {.op = io_op::read, .offset = 512, .length = length, .alignment = 512, .memory = &memory},
               &calls, [](void* owner, std::error_code failure) {
                 CHECK_FALSE(failure);
                 ++*static_cast<int*>(owner);
               });
  queue.drain();
  CHECK(calls == 1);
  std::uint64_t expected = 512;
  for (const auto& piece : queue.asked) {
    CHECK(piece.offset == expected);
    CHECK(piece.length <= (std::uint64_t{1} << 31) - 4096);
    CHECK(piece.length % 512 == 0);
    expected += piece.length;
  }
  CHECK(expected == 512 + length);
}
