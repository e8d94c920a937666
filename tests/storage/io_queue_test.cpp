#include "storage/io_queue.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <vector>

#include "tests/storage/fake_queue.hpp"
#include "tests/storage/process_end.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

TEST_CASE("destroying_a_request_that_is_in_flight_ends_the_process") {
  for (const io_state state : {io_state::queued, io_state::active}) {
    CHECK(aborts([state] {
      io_request request;
      request.state = state;
    }));
  }
}

TEST_CASE("destroying_an_idle_request_is_fine") {
  CHECK_FALSE(aborts([] { io_request request; }));
}

TEST_CASE("a_list_gives_requests_back_in_the_order_they_came") {
  std::vector<io_request> requests(5);
  io_list list;
  CHECK(list.empty());
  CHECK(list.pop_front() == nullptr);
  for (auto& request : requests) list.push_back(request);
  CHECK_FALSE(list.empty());
  for (auto& request : requests) {
    CHECK(list.front() == &request);
    CHECK(list.pop_front() == &request);
    CHECK(request.next == nullptr);
  }
  CHECK(list.empty());

  // Emptied, it can be filled again, also with one that was in it before.
  list.push_back(requests[2]);
  list.push_back(requests[0]);
  CHECK(list.pop_front() == &requests[2]);
  CHECK(list.pop_front() == &requests[0]);
  CHECK(list.pop_front() == nullptr);
}

TEST_CASE("the_fake_disk_sees_what_is_not_aligned_or_overlaps") {
  const geometry shape{.size = 8192, .direct_end = 4096, .alignment = 512, .zeroing_granularity = 4096};
  fake_disk disk(shape, 1);
  fake_queue queue(disk);
  alignas(512) static std::byte memory[1024];
  const auto submit = [&](io_request& request, io_op op, int fd, std::uint64_t offset, std::uint64_t length,
                          std::byte* where) {
    request.op = op;
    request.fd = fd;
    request.offset = offset;
    request.length = length;
    request.memory = where;
    request.hook = [](io_request&) {};
    queue.submit(request);
    queue.flush();
  };
  const auto complaints = [&] { return disk.violations().size(); };
  std::vector<io_request> requests(9);
  submit(requests[0], io_op::write, fake_disk::direct_fd, 512, 512, memory);
  CHECK(complaints() == 0);
  submit(requests[1], io_op::write, fake_disk::direct_fd, 512, 1024, memory);
  CHECK(complaints() == 1);  // overlaps the first
  submit(requests[2], io_op::read, fake_disk::direct_fd, 100, 512, memory);
  CHECK(complaints() == 2);
  submit(requests[3], io_op::read, fake_disk::direct_fd, 0, 100, memory);
  CHECK(complaints() == 3);
  submit(requests[4], io_op::read, fake_disk::direct_fd, 0, 512, memory + 1);
  CHECK(complaints() == 4);
  submit(requests[5], io_op::read, fake_disk::direct_fd, 4096, 512, memory);
  CHECK(complaints() == 5);  // past direct_end
  submit(requests[6], io_op::buffered_read, fake_disk::buffered_fd, 0, 10, memory);
  CHECK(complaints() == 6);  // before it
  submit(requests[7], io_op::punch_hole, fake_disk::direct_fd, 4096, 512, nullptr);
  CHECK(complaints() == 7);
  submit(requests[8], io_op::read, fake_disk::direct_fd, 1024, 512, memory);
  CHECK(complaints() == 7);
  run(disk, queue);
  CHECK(queue.outstanding() == 0);
}

TEST_CASE("the_fake_disk_keeps_through_a_power_cut_only_what_a_sync_covered") {
  const geometry shape{.size = 4096, .direct_end = 4096, .alignment = 512};
  fake_disk disk(shape, 3);
  fake_queue queue(disk);
  alignas(512) static std::byte memory[512];
  memory[0] = std::byte{7};
  io_request write;
  write.op = io_op::write;
  write.fd = fake_disk::direct_fd;
  write.length = 512;
  write.memory = memory;
  write.hook = [](io_request&) {};
  queue.submit(write);
  run(disk, queue);
  CHECK(disk.image()[0] == std::byte{7});
  CHECK(disk.stable()[0] == std::byte{0});

  io_request sync;
  sync.op = io_op::sync;
  sync.fd = fake_disk::direct_fd;
  sync.hook = [](io_request&) {};
  queue.submit(sync);
  run(disk, queue);
  CHECK(disk.stable()[0] == std::byte{7});

  write.offset = 512;
  write.durable = true;
  queue.submit(write);
  run(disk, queue);
  CHECK(disk.stable()[512] == std::byte{7});
}

// A file system drops what it could not write, and a disk's cache may be gone; the next sync knows nothing of
// that.
TEST_CASE("the_fake_disk_loses_some_of_what_a_failed_sync_was_to_cover_until_it_is_written_again") {
  const geometry shape{.size = 4096, .direct_end = 4096, .alignment = 512};
  int lost_all = 0, lost_nothing = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    fake_disk disk(shape, seed);
    fake_queue queue(disk);
    alignas(512) static std::byte memory[512];
    std::ranges::fill(memory, std::byte{7});
    io_request write, sync;
    write.op = io_op::write;
    write.fd = fake_disk::direct_fd;
    sync.fd = fake_disk::buffered_fd;
    write.length = 512;
    write.memory = memory;
    sync.op = io_op::sync;
    write.hook = sync.hook = [](io_request&) {};
    const auto carry_out = [&](io_request& each) {
      queue.submit(each);
      run(disk, queue);
    };
    const auto are_stable = [&](std::uint64_t offset) {
      const auto stable = disk.stable();
      const auto begin = stable.begin() + static_cast<std::ptrdiff_t>(offset);
      return std::count(begin, begin + 512, std::byte{7});
    };
    carry_out(write);
    carry_out(sync);
    write.offset = 1024;
    carry_out(write);
    disk.fail_nth(io_op::sync, 0, EIO);
    carry_out(sync);
    CHECK(disk.possible_losses() == 1);
    carry_out(sync);
    CHECK(are_stable(0) == 512);
    lost_all += are_stable(1024) == 0;
    lost_nothing += are_stable(1024) == 512;
    CHECK(disk.image()[1024] == std::byte{7});
    carry_out(write);
    carry_out(sync);
    CHECK(are_stable(1024) == 512);
  }
  CHECK(lost_all >= 5);
  CHECK(lost_nothing >= 5);
}
