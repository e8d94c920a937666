#include "storage/offload_queue.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "tests/storage/aligned_memory.hpp"
#include "tests/storage/temporary_file.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

// Where finished work is brought to: kept until somebody waits for it.
class mailbox final : public io_queue {
 public:
  void submit(io_request&) override {}
  void flush() override {}
  void post(io_request& request) override {
    const std::lock_guard guard(mutex_);
    arrived_.push_back(&request);
    threads_.insert(std::this_thread::get_id());
    wake_.notify_one();
  }
  void wait_for(std::size_t count) {
    std::unique_lock guard(mutex_);
    wake_.wait(guard, [&] { return arrived_.size() >= count; });
  }
  // What a queue does before it runs the hook.
  void make_idle() {
    const std::lock_guard guard(mutex_);
    for (io_request* request : arrived_) request->state = io_state::idle;
  }
  std::size_t count() {
    const std::lock_guard guard(mutex_);
    return arrived_.size();
  }
  bool came_from(std::thread::id thread) {
    const std::lock_guard guard(mutex_);
    return threads_.count(thread) != 0;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<io_request*> arrived_;
  std::set<std::thread::id> threads_;
};

constexpr std::uint64_t mib = 1 << 20;

std::int64_t carry_out(io_op op, int fd, std::uint64_t offset, std::uint64_t length,
                       std::byte* memory = nullptr, bool durable = false) {
  io_request request;
  request.op = op;
  request.fd = fd;
  request.offset = offset;
  request.length = length;
  request.memory = memory;
  request.durable = durable;
  return perform(request);
}

bool all_are(const std::vector<std::byte>& content, std::uint64_t begin, std::uint64_t end, std::byte value) {
  return std::all_of(content.begin() + static_cast<std::ptrdiff_t>(begin),
                     content.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](std::byte each) { return each == value; });
}

void fill(const temporary_file& file, std::uint64_t size, std::byte value) {
  std::vector<std::byte> bytes(size, value);
  REQUIRE(carry_out(io_op::buffered_write, file.buffered(), 0, size, bytes.data()) ==
          static_cast<std::int64_t>(size));
  REQUIRE(carry_out(io_op::sync, file.direct(), 0, 0) == 0);
}

}  // namespace

TEST_CASE("buffered_reads_and_writes_take_any_offset_and_length") {
  temporary_file file(10000);
  std::vector<std::byte> bytes(777, std::byte{0x31});
  for (const bool durable : {false, true}) {
    CHECK(carry_out(io_op::buffered_write, file.buffered(), 1234, 777, bytes.data(), durable) == 777);
  }
  std::vector<std::byte> found(800);
  CHECK(carry_out(io_op::buffered_read, file.buffered(), 1220, 800, found.data()) == 800);
  CHECK(all_are(found, 0, 14, std::byte{0}));
  CHECK(all_are(found, 14, 791, std::byte{0x31}));
  CHECK(all_are(found, 791, 800, std::byte{0}));
}

TEST_CASE("direct_reads_and_writes_can_be_offloaded") {
  temporary_file file(mib);
  const aligned_memory memory = allocate_aligned(8192, 4096);
  std::fill_n(memory.get(), 8192, std::byte{0x17});
  CHECK(carry_out(io_op::write, file.direct(), 4096, 8192, memory.get(), true) == 8192);
  std::fill_n(memory.get(), 8192, std::byte{0});
  CHECK(carry_out(io_op::read, file.direct(), 4096, 8192, memory.get()) == 8192);
  CHECK(
      std::all_of(memory.get(), memory.get() + 8192, [](std::byte each) { return each == std::byte{0x17}; }));
}

TEST_CASE("a_read_past_the_end_is_short") {
  temporary_file file(1000);
  std::vector<std::byte> found(100);
  CHECK(carry_out(io_op::buffered_read, file.buffered(), 950, 100, found.data()) == 50);
  CHECK(carry_out(io_op::buffered_read, file.buffered(), 1000, 100, found.data()) == 0);
}

TEST_CASE("a_punched_hole_reads_as_zeroes_and_gives_its_space_back") {
  temporary_file file(4 * mib);
  fill(file, 4 * mib, std::byte{0x44});
  const std::uint64_t before = file.allocated();
  const std::int64_t result = carry_out(io_op::punch_hole, file.direct(), mib, 2 * mib);
  if (result == -EOPNOTSUPP) {
    WARN("this file system cannot punch holes");
    return;
  }
  REQUIRE(result == 0);
  CHECK(::lseek(file.buffered(), 0, SEEK_HOLE) == static_cast<off_t>(mib));
  CHECK(::lseek(file.buffered(), static_cast<off_t>(mib), SEEK_DATA) == static_cast<off_t>(3 * mib));
  CHECK(file.allocated() < before);
  const auto content = file.content();
  CHECK(all_are(content, 0, mib, std::byte{0x44}));
  CHECK(all_are(content, mib, 3 * mib, std::byte{0}));
  CHECK(all_are(content, 3 * mib, 4 * mib, std::byte{0x44}));
}

TEST_CASE("a_range_zeroed_in_place_reads_as_zeroes_and_keeps_its_space") {
  temporary_file file(4 * mib);
  fill(file, 4 * mib, std::byte{0x44});
  const std::uint64_t before = file.allocated();
  const std::int64_t result = carry_out(io_op::zero_range, file.direct(), mib, 2 * mib);
  if (result == -EOPNOTSUPP) {
    WARN("this file system cannot zero ranges");
    return;
  }
  REQUIRE(result == 0);
  CHECK(file.allocated() >= before);
  const auto content = file.content();
  CHECK(all_are(content, mib, 3 * mib, std::byte{0}));
  CHECK(all_are(content, 3 * mib, 4 * mib, std::byte{0x44}));
}

TEST_CASE("holes_and_zeroes_never_change_the_size_of_a_file") {
  temporary_file file(mib + 5);
  for (const io_op op : {io_op::punch_hole, io_op::zero_range}) {
    (void)carry_out(op, file.direct(), 0, 4 * mib);  // whether it can at all is shown elsewhere
    CHECK(::lseek(file.buffered(), 0, SEEK_END) == static_cast<off_t>(mib + 5));
  }
}

TEST_CASE("failures_come_back_as_negative_error_numbers") {
  temporary_file file(mib);
  std::byte memory{};
  CHECK(carry_out(io_op::buffered_read, -1, 0, 1, &memory) == -EBADF);
  CHECK(carry_out(io_op::buffered_write, -1, 0, 1, &memory) == -EBADF);
  CHECK(carry_out(io_op::sync, -1, 0, 0) == -EBADF);
  CHECK(carry_out(io_op::punch_hole, -1, 0, 4096) == -EBADF);
  CHECK(carry_out(io_op::discard, file.direct(), 0, 4096) == -ENOTTY);  // not a disk
}

TEST_CASE("offloaded_work_is_done_elsewhere_and_brought_to_its_home", "[loops]") {
  temporary_file file(mib);
  mailbox first_home;
  mailbox second_home;
  std::array<std::byte, 64> bytes{};
  std::deque<io_request> requests(40);
  offload_queue queue(3);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    io_request& request = requests[i];
    request.op = io_op::buffered_write;
    request.fd = file.buffered();
    request.offset = i * bytes.size();
    request.length = bytes.size();
    request.memory = bytes.data();
    queue.run(request, i % 2 == 0 ? first_home : second_home);
  }
  first_home.wait_for(20);
  second_home.wait_for(20);
  for (io_request& request : requests) CHECK(request.result == static_cast<std::int64_t>(bytes.size()));
  CHECK_FALSE(first_home.came_from(std::this_thread::get_id()));
  first_home.make_idle();
  second_home.make_idle();
}

TEST_CASE("the_offload_queue_finishes_what_it_took_before_it_goes", "[loops]") {
  temporary_file file(mib);
  mailbox home;
  std::array<std::byte, 64> bytes{};
  std::deque<io_request> requests(200);
  {
    offload_queue queue(2);
    for (io_request& request : requests) {
      request.op = io_op::buffered_write;
      request.fd = file.buffered();
      request.length = bytes.size();
      request.memory = bytes.data();
      queue.run(request, home);
    }
  }
  CHECK(home.count() == requests.size());
  home.make_idle();
}

TEST_CASE("work_is_begun_in_order_of_arrival_by_a_single_thread") {
  temporary_file file(mib);
  mailbox home;
  std::deque<std::byte> marks;
  std::deque<io_request> requests(100);
  {
    offload_queue queue(1);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      io_request& request = requests[i];
      request.op = io_op::buffered_write;
      request.fd = file.buffered();
      request.length = 1;
      request.memory = &marks.emplace_back(static_cast<std::byte>(i));
      queue.run(request, home);
    }
  }
  home.make_idle();
  CHECK(file.content()[0] == std::byte{99});
}

TEST_CASE("threads_of_the_offload_queue_leave_signals_to_others") {
  offload_queue queue(1);
  // The mask of this thread is what it was.
  sigset_t mine{};
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  CHECK(sigismember(&mine, SIGTERM) == 0);
}
