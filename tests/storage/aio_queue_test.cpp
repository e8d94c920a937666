#include "storage/aio_queue.hpp"

#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <deque>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <system_error>
#include <thread>
#include <vector>

#include "storage/offload_queue.hpp"
#include "tests/storage/aligned_memory.hpp"
#include "tests/storage/device_request.hpp"
#include "tests/storage/process_end.hpp"
#include "tests/storage/temporary_file.hpp"
#include "tests/support/catch.hpp"

// As libaio declares it; only aio_queue.cpp includes its header.
extern "C" int io_submit(io_context* context, long count, iocb** blocks);

using namespace aionbd::storage;

namespace {

constexpr std::uint64_t block = 4096;
constexpr std::uint64_t file_size = 64 * block;

void drain_once(aio_queue& queue) {
  pollfd readable{.fd = queue.event_fd(), .events = POLLIN, .revents = 0};
  REQUIRE(::poll(&readable, 1, 10000) == 1);
  queue.drain();
}

void drain_all(aio_queue& queue) {
  queue.flush();
  while (queue.outstanding() > 0) drain_once(queue);
}

// What io_submit is to answer next; without an answer it does what it always does.
std::deque<std::function<int(io_context*, long, iocb**)>> answers;

int answering_submit(io_context* context, long count, iocb** blocks) {
  if (answers.empty()) return ::io_submit(context, count, blocks);
  const auto answer = answers.front();
  answers.pop_front();
  return answer(context, count, blocks);
}

void answer_once(int result) {
  answers.emplace_back([result](io_context*, long, iocb**) { return result; });
}
void answer_by_taking(long count_max) {
  answers.emplace_back([count_max](io_context* context, long count, iocb** blocks) {
    return ::io_submit(context, std::min(count, count_max), blocks);
  });
}

// A file, a queue to it and requests of one block each, every one with its own mark.
struct aio_world {
  temporary_file file{file_size};
  offload_queue blocking{2};
  aio_queue queue;
  aligned_memory memory = allocate_aligned(file_size, block);
  std::deque<io_request> requests;
  std::vector<io_request*> ended;
  bool inside_call = false;
  bool hook_ran_inside_call = false;

  explicit aio_world(unsigned depth = 64, aio_queue::submit_call call = nullptr)
      : queue(depth, blocking, call) {
    answers.clear();
    std::fill_n(memory.get(), file_size, std::byte{0xEE});
  }

  io_request& add(io_op op, std::uint64_t number = 0, std::uint64_t length = block) {
    io_request& request = requests.emplace_back();
    request.op = op;
    request.fd = op == io_op::buffered_read || op == io_op::buffered_write ? file.buffered() : file.direct();
    request.offset = number * block;
    request.length = length;
    request.memory = memory.get() + number * block;
    request.owner = this;
    request.hook = [](io_request& done) {
      auto& world = *static_cast<aio_world*>(done.owner);
      if (world.inside_call) world.hook_ran_inside_call = true;
      world.ended.push_back(&done);
    };
    return request;
  }
  void submit(io_request& request) {
    inside_call = true;
    queue.submit(request);
    inside_call = false;
  }
  void flush() {
    inside_call = true;
    queue.flush();
    inside_call = false;
  }
  void write_blocks(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      std::fill_n(memory.get() + i * block, block, static_cast<std::byte>(i + 1));
      submit(add(io_op::write, i));
    }
  }
  void finish() {
    flush();
    drain_all(queue);
  }
  bool file_has_blocks(std::size_t count) const {
    const auto content = file.content();
    for (std::size_t i = 0; i < count * block; ++i) {
      if (content[i] != static_cast<std::byte>(i / block + 1)) return false;
    }
    return true;
  }
  bool all_transferred() const {
    return std::ranges::all_of(ended,
                               [](const io_request* each) { return each->result == std::int64_t{block}; });
  }
};

}  // namespace

TEST_CASE("what_is_written_through_the_queue_is_in_the_file_and_is_read_back") {
  aio_world world;
  world.write_blocks(10);
  world.finish();
  CHECK(world.ended.size() == 10);
  CHECK(world.all_transferred());
  CHECK(world.file_has_blocks(10));

  std::fill_n(world.memory.get(), file_size, std::byte{0});
  for (std::size_t i = 0; i < 10; ++i) world.submit(world.add(io_op::read, i));
  world.finish();
  CHECK(world.all_transferred());
  for (std::size_t i = 0; i < 10; ++i) CHECK(world.memory.get()[i * block] == static_cast<std::byte>(i + 1));
  CHECK_FALSE(world.hook_ran_inside_call);
}

TEST_CASE("syncs_and_durable_writes_go_through_the_kernel_queue") {
  aio_world world;
  world.write_blocks(2);
  io_request& durable = world.add(io_op::write, 5);
  durable.durable = true;
  world.submit(durable);
  world.finish();
  CHECK(world.all_transferred());
  io_request& sync = world.add(io_op::sync);
  world.submit(sync);
  world.finish();
  CHECK(sync.result == 0);
  CHECK(world.queue.counts().requests == 4);
}

TEST_CASE("the_kernel_is_told_what_is_durable_and_whom_to_wake") {
  aio_world world(64, &answering_submit);
  static std::vector<iocb> given;
  given.clear();
  const auto look = [](io_context* context, long count, iocb** blocks) {
    for (long i = 0; i < count; ++i) given.push_back(*blocks[i]);
    return ::io_submit(context, count, blocks);
  };
  for (int i = 0; i < 8; ++i) answers.emplace_back(look);
  world.submit(world.add(io_op::read, 1));
  world.submit(world.add(io_op::write, 2));
  io_request& durable = world.add(io_op::write, 3);
  durable.durable = true;
  world.submit(durable);
  world.submit(world.add(io_op::sync));
  world.finish();

  REQUIRE(given.size() == 4);
  constexpr std::array<unsigned, 4> opcodes{IOCB_CMD_PREAD, IOCB_CMD_PWRITE, IOCB_CMD_PWRITE,
                                            IOCB_CMD_FDSYNC};
  for (std::size_t i = 0; i < given.size(); ++i) {
    CHECK(given[i].aio_lio_opcode == opcodes[i]);
    CHECK(given[i].aio_rw_flags == (i == 2 ? RWF_DSYNC : 0));
    CHECK((given[i].aio_flags & IOCB_FLAG_RESFD) != 0);
    CHECK(given[i].aio_resfd == static_cast<unsigned>(world.queue.event_fd()));
  }
  CHECK(given[1].aio_offset == static_cast<std::int64_t>(2 * block));
  CHECK(given[1].aio_nbytes == block);
}

TEST_CASE("an_idle_disk_gets_a_request_at_once_and_the_rest_in_batches") {
  aio_world world;
  world.write_blocks(32);
  CHECK(world.queue.counts().requests == 18);  // 1, then 8, then as many again
  world.finish();
  CHECK(world.ended.size() == 32);
  CHECK(world.queue.counts().requests == 32);
  CHECK(world.queue.counts().submit_calls <= 8);
  CHECK(world.file_has_blocks(32));
}

TEST_CASE("more_requests_than_the_queue_is_deep_wait_for_their_turn") {
  for (const unsigned depth : {1U, 2U, 7U}) {
    aio_world world(depth);
    world.write_blocks(50);
    world.finish();
    CHECK(world.ended.size() == 50);
    CHECK(world.all_transferred());
    CHECK(world.file_has_blocks(50));
  }
}

TEST_CASE("no_more_requests_than_the_queue_is_deep_are_in_the_kernel") {
  aio_world world(3);
  world.write_blocks(30);
  world.flush();
  CHECK(world.queue.counts().requests == 3);
  world.finish();
  CHECK(world.queue.counts().requests == 30);
}

TEST_CASE("a_submit_that_takes_only_some_leaves_the_rest_queued") {
  for (const long taken : {1L, 2L, 6L, 7L}) {
    aio_world world(64, &answering_submit);
    for (int i = 0; i < 5; ++i) answer_by_taking(taken);
    world.write_blocks(20);
    world.finish();
    CHECK(world.ended.size() == 20);
    CHECK(world.all_transferred());
    CHECK(world.file_has_blocks(20));
    CHECK(world.queue.counts().requests == 20);
    CHECK_FALSE(world.hook_ran_inside_call);
  }
}

TEST_CASE("a_submit_that_takes_none_while_work_is_in_the_kernel_is_tried_again_after_a_completion") {
  for (const int answer : {0, -EAGAIN, -EINTR}) {
    aio_world world(64, &answering_submit);
    world.write_blocks(1);
    answer_once(answer);
    for (std::size_t i = 1; i < 5; ++i) {
      std::fill_n(world.memory.get() + i * block, block, static_cast<std::byte>(i + 1));
      world.submit(world.add(io_op::write, i));
    }
    world.flush();
    CHECK(world.queue.counts().requests == 1);
    world.finish();
    CHECK(world.ended.size() == 5);
    CHECK(world.queue.counts().requests == 5);
    CHECK(world.file_has_blocks(5));
  }
}

TEST_CASE("a_submit_that_takes_none_of_an_idle_queue_is_carried_out_by_a_thread") {
  for (const int answer : {0, -EAGAIN, -EINTR}) {
    aio_world world(64, &answering_submit);
    for (int i = 0; i < 3; ++i) answer_once(answer);
    world.write_blocks(3);
    world.finish();
    CHECK(world.ended.size() == 3);
    CHECK(world.all_transferred());
    CHECK(world.queue.counts().requests == 0);
    CHECK(world.file_has_blocks(3));
    CHECK_FALSE(world.hook_ran_inside_call);
  }
}

TEST_CASE("a_sync_the_kernel_will_not_take_is_carried_out_by_a_thread") {
  aio_world world(64, &answering_submit);
  answer_once(-EAGAIN);
  io_request& sync = world.add(io_op::sync);
  world.submit(sync);
  world.finish();
  CHECK(sync.result == 0);
  CHECK(world.ended.size() == 1);
}

TEST_CASE("a_refused_first_request_ends_with_the_error_and_those_behind_it_go_on") {
  for (const int error : {-EBADF, -EINVAL, -EFAULT, -EIO}) {
    aio_world world(64, &answering_submit);
    world.write_blocks(1);
    answer_once(error);
    for (std::size_t i = 1; i < 4; ++i) {
      std::fill_n(world.memory.get() + i * block, block, static_cast<std::byte>(i + 1));
      world.submit(world.add(io_op::write, i));
    }
    world.flush();
    CHECK_FALSE(world.hook_ran_inside_call);
    world.finish();
    REQUIRE(world.ended.size() == 4);
    CHECK(world.requests[1].result == error);
    for (const std::size_t i : {0U, 2U, 3U}) CHECK(world.requests[i].result == std::int64_t{block});
  }
}

TEST_CASE("a_request_with_a_bad_descriptor_or_offset_is_refused_by_the_kernel_itself") {
  aio_world world;
  world.submit(world.add(io_op::read, 0));
  io_request& bad = world.add(io_op::read, 1);
  bad.fd = -1;
  world.submit(bad);
  io_request& unaligned = world.add(io_op::read, 2);
  unaligned.offset += 1;
  world.submit(unaligned);
  world.submit(world.add(io_op::read, 3));
  world.finish();
  CHECK(world.ended.size() == 4);
  CHECK(world.requests[0].result == std::int64_t{block});
  CHECK(bad.result == -EBADF);
  CHECK(world.requests[3].result == std::int64_t{block});
}

TEST_CASE("offloaded_work_comes_back_through_the_same_door") {
  aio_world world;
  io_request& write = world.add(io_op::buffered_write, 1, 100);
  io_request& hole = world.add(io_op::punch_hole, 8, 8 * block);
  io_request& discard = world.add(io_op::discard, 0);
  world.submit(write);
  world.submit(hole);
  world.submit(discard);
  world.submit(world.add(io_op::read, 20));
  CHECK(world.queue.outstanding() == 4);
  world.finish();
  CHECK(world.ended.size() == 4);
  CHECK(write.result == 100);
  CHECK((hole.result == 0 || hole.result == -EOPNOTSUPP));
  CHECK(discard.result == -ENOTTY);
  CHECK_FALSE(world.hook_ran_inside_call);
  CHECK(world.queue.counts().requests == 1);
}

TEST_CASE("a_hook_may_submit_again") {
  aio_world world(4);
  struct repeating {
    aio_queue& queue;
    io_request request;
    int left = 100;
  } again{.queue = world.queue, .request = {}};
  again.request.op = io_op::read;
  again.request.fd = world.file.direct();
  again.request.length = block;
  again.request.memory = world.memory.get();
  again.request.owner = &again;
  again.request.hook = [](io_request& done) {
    auto& self = *static_cast<repeating*>(done.owner);
    if (--self.left > 0) self.queue.submit(done);
  };
  world.queue.submit(again.request);
  world.finish();
  CHECK(again.left == 0);
}

TEST_CASE("a_message_posted_from_another_thread_wakes_the_queue_and_runs_on_its_thread", "[loops]") {
  aio_world world;
  constexpr std::size_t count = 2000;
  std::deque<io_request> messages(count);
  struct counter {
    std::size_t arrived = 0;
    std::thread::id thread;
  } seen;
  for (io_request& message : messages) {
    message.owner = &seen;
    message.hook = [](io_request& arrived) {
      auto& mine = *static_cast<counter*>(arrived.owner);
      ++mine.arrived;
      mine.thread = std::this_thread::get_id();
    };
  }
  std::array<std::thread, 2> posters;
  for (std::size_t number = 0; number < posters.size(); ++number) {
    posters[number] = std::thread([&, number] {
      for (std::size_t i = number; i < count; i += posters.size()) world.queue.post(messages[i]);
    });
  }
  while (seen.arrived < count) drain_once(world.queue);
  for (auto& poster : posters) poster.join();
  CHECK(seen.arrived == count);
  CHECK(seen.thread == std::this_thread::get_id());
  CHECK(world.queue.outstanding() == 0);
}

TEST_CASE("one_drain_gives_back_all_that_has_completed") {
  constexpr std::size_t count = 150;  // more than are reaped in one call
  aio_world world(256);
  for (std::size_t i = 0; i < count; ++i) world.submit(world.add(io_op::read, i % 64));
  world.flush();
  REQUIRE(world.queue.counts().requests == count);
  // The kernel adds one for each completion. Nothing else will make the eventfd readable again.
  for (eventfd_t completed = 0; completed < count;) {
    pollfd readable{.fd = world.queue.event_fd(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&readable, 1, 10000) == 1);
    eventfd_t more = 0;
    REQUIRE(::eventfd_read(world.queue.event_fd(), &more) == 0);
    completed += more;
  }
  CHECK(world.queue.drain() == count);
  CHECK(world.ended.size() == count);
  world.finish();
}

TEST_CASE("what_has_finished_can_be_had_without_a_drain") {
  aio_world world;
  CHECK(world.queue.deliver_finished() == 0);
  io_request& first = world.add(io_op::read);
  io_request& second = world.add(io_op::read, 1);
  first.hook = [](io_request& done) {
    auto& its_world = *static_cast<aio_world*>(done.owner);
    its_world.ended.push_back(&done);
    its_world.queue.submit(its_world.requests[1]);
  };
  world.submit(first);
  pollfd readable{.fd = world.queue.event_fd(), .events = POLLIN, .revents = 0};
  REQUIRE(::poll(&readable, 1, 10000) == 1);
  CHECK(world.queue.deliver_finished() == 1);
  CHECK(world.ended == std::vector{&first});
  CHECK(second.state == io_state::active);
  while (world.queue.outstanding() != 0) world.queue.deliver_finished();
  CHECK(world.ended == std::vector{&first, &second});
  // What was posted comes by the drain alone, which the eventfd still asks for.
  CHECK(::poll(&readable, 1, 0) == 1);
  world.queue.drain();
  CHECK(::poll(&readable, 1, 0) == 0);
}

TEST_CASE("the_eventfd_is_quiet_when_there_is_nothing_to_do") {
  aio_world world;
  pollfd readable{.fd = world.queue.event_fd(), .events = POLLIN, .revents = 0};
  CHECK(::poll(&readable, 1, 0) == 0);
  CHECK(world.queue.drain() == 0);
  world.write_blocks(3);
  world.finish();
  world.queue.drain();
  CHECK(::poll(&readable, 1, 0) == 0);
}

TEST_CASE("a_queue_deeper_than_the_machine_allows_cannot_be_made") {
  unsigned allowed = 0;
  std::ifstream("/proc/sys/fs/aio-max-nr") >> allowed;
  REQUIRE(allowed > 0);
  offload_queue blocking(1);
  std::error_code failure;
  try {
    const aio_queue queue(allowed + 1, blocking);
  } catch (const std::system_error& refusal) {
    failure = refusal.code();
  }
  CHECK(failure == std::error_code(EAGAIN, std::system_category()));
}

TEST_CASE("destroying_a_queue_with_requests_outstanding_ends_the_process") {
  CHECK(aborts([] {
    temporary_file file(file_size);
    offload_queue blocking(0);
    const aligned_memory memory = allocate_aligned(block, block);
    auto* const request = new io_request;  // its own destructor must not be what ends the process
    std::optional<aio_queue> queue(std::in_place, 8U, blocking, nullptr);
    request->op = io_op::read;
    request->fd = file.direct();
    request->length = block;
    request->memory = memory.get();
    request->hook = [](io_request&) {};
    queue->submit(*request);
    queue.reset();
  }));
}

namespace {

// One loop of two: random unaligned requests to stripes of its own, which share blocks with the other's.
struct stress_loop {
  static constexpr std::uint64_t stripe = 1000;
  static constexpr std::size_t in_flight = 8;
  static constexpr int requests_in_all = 600;

  block_device& device;
  unsigned number;
  unsigned loops;
  std::vector<std::byte>& expected;  // only this loop's stripes are touched
  std::atomic<unsigned>& working;
  std::atomic<int>& failures;

  void go(offload_queue& blocking) {
    aio_queue queue(64, blocking);
    std::mt19937 generator(number);
    std::array<std::optional<device_request>, in_flight> active;
    std::array<std::uint64_t, in_flight> places{};
    int left = requests_in_all;
    std::size_t busy = 0;
    while (left > 0 || busy > 0) {
      for (std::size_t slot = 0; slot < in_flight; ++slot) {
        if (active[slot] && active[slot]->is_done()) {
          if (active[slot]->failure()) ++failures;
          active[slot].reset();
          --busy;
        }
        if (active[slot] || left == 0) continue;
        --left;
        ++busy;
        // Each slot has stripes of its own, so that no two writes in flight are for the same bytes.
        const std::uint64_t rows = expected.size() / stripe / loops / in_flight;
        places[slot] = stripe * (number + loops * (slot + in_flight * (generator() % rows)));
        submit_one(active[slot], queue, places[slot], generator());
      }
      queue.flush();
      wait(queue);
    }
    --working;
    while (working > 0 || queue.outstanding() > 0) wait(queue);
  }

  void submit_one(std::optional<device_request>& slot, aio_queue& queue, std::uint64_t offset,
                  std::uint64_t random) {
    const auto mine = expected.begin() + static_cast<std::ptrdiff_t>(offset);
    switch (random % 8) {
      case 0:
        slot.emplace(device, operation_kind::flush);
        break;
      case 1:
        slot.emplace(device, operation_kind::write_zeroes, offset, stripe);
        std::fill_n(mine, stripe, std::byte{0});
        break;
      default: {
        const auto value = static_cast<std::byte>(random >> 8);
        slot.emplace(device, operation_kind::write, offset, stripe);
        slot->filled_with(value);
        slot->op.durable = random % 8 == 2;
        std::fill_n(mine, stripe, value);
        break;
      }
    }
    slot->submit(queue);
  }

  static void wait(aio_queue& queue) {
    pollfd readable{.fd = queue.event_fd(), .events = POLLIN, .revents = 0};
    if (::poll(&readable, 1, 5) == 1) queue.drain();
  }
};

}  // namespace

TEST_CASE("two_loops_with_queues_and_threads_of_their_own_lose_no_write_on_a_real_file", "[loops]") {
  constexpr std::uint64_t size = 96000 + 500;  // with a buffered end
  temporary_file file(size);
  const geometry shape{.size = size,
                       .direct_end = round_down(size, block),
                       .alignment = block,
                       .zeroing_granularity = block,
                       .can_punch_hole = true,
                       .can_zero_range = true};
  block_device device(shape, {.direct = file.direct(), .buffered = file.buffered()});
  offload_queue blocking(3);
  std::vector<std::byte> expected(size);
  constexpr unsigned loops = 2;
  std::atomic<unsigned> working{loops};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < loops; ++number) {
    threads.emplace_back(
        [&, number] { stress_loop{device, number, loops, expected, working, failures}.go(blocking); });
  }
  for (auto& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(file.content() == expected);
}
