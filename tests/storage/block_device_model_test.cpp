// Random requests of several clients on several queues, held against what each byte may be at each time.
#include <algorithm>
#include <array>
#include <atomic>
#include <list>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "storage/block_device.hpp"
#include "tests/storage/device_request.hpp"
#include "tests/storage/fake_queue.hpp"
#include "tests/storage/image_model.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

struct range {
  std::uint64_t offset;
  std::uint64_t length;
};

class random_load {
 public:
  random_load(const geometry& shape, std::uint64_t seed, bool short_counts)
      : generator_(seed),
        shape_(shape),
        disk_(shape, seed),
        device_(shape, disk_.file()),
        model_(shape.size) {
    disk_.short_counts(short_counts);
  }

  // Empty, or what went wrong first.
  const std::string& complaint() const { return complaint_; }

  void go(int rounds) {
    for (int round = 0; round < rounds && complaint_.empty(); ++round) {
      if (active_.size() < in_flight_max && random(2) == 0) submit_one();
      for (std::uint64_t i = random(4); i > 0; --i) disk_.step();
      queues_[random(queues_.size())].drain();
      collect();
    }
    run(disk_, {&queues_[0], &queues_[1], &queues_[2]});
    collect();
    check_the_end();
  }

 private:
  static constexpr std::size_t in_flight_max = 12;

  struct active_request {
    active_request(block_device& device, operation_kind kind, range where)
        : request(device, kind, where.offset, where.length) {}
    device_request request;
    std::size_t change = 0;
    image_model::time looked_from = 0;
  };

  std::uint64_t random(std::uint64_t limit) { return generator_() % limit; }

  range random_range() {
    const std::uint64_t offset = random(shape_.size);
    const std::uint64_t left = shape_.size - offset;
    switch (random(4)) {
      case 0: {  // aligned
        const std::uint64_t begin = round_down(offset, shape_.alignment);
        return {begin, std::min(shape_.alignment * (1 + random(4)), shape_.size - begin)};
      }
      case 1:
        return {offset, 1 + random(left)};
      case 2:  // up to the end, where the buffered part is
        return {shape_.size - 1 - random(std::min<std::uint64_t>(shape_.size, 40)), 1};
      default:
        return {offset, 1 + random(std::min<std::uint64_t>(left, 2 * shape_.alignment))};
    }
  }

  operation_kind random_kind() {
    constexpr operation_kind kinds[] = {
        operation_kind::write,        operation_kind::write, operation_kind::write,
        operation_kind::write,        operation_kind::read,  operation_kind::read,
        operation_kind::write_zeroes, operation_kind::trim,  operation_kind::flush};
    return kinds[random(std::size(kinds))];
  }

  void submit_one() {
    const operation_kind kind = random_kind();
    range where = kind == operation_kind::flush ? range{0, 0} : random_range();
    if (where.length == 1 && random(2) == 0) where.length = shape_.size - where.offset;
    active_request& fresh = active_.emplace_back(device_, kind, where);
    switch (kind) {
      case operation_kind::write: {
        fresh.change = model_.begin_change(image_model::kind::write, where.offset, where.length);
        const auto payload = fresh.request.payload();
        for (std::uint64_t i = 0; i < where.length; ++i) {
          payload[i] = image_model::written(fresh.change, where.offset + i);
        }
        break;
      }
      case operation_kind::write_zeroes:
        fresh.change = model_.begin_change(image_model::kind::zeroes, where.offset, where.length);
        fresh.request.op.keep_allocated = random(2) == 0;
        break;
      case operation_kind::trim:
        fresh.change = model_.begin_change(image_model::kind::trim, where.offset, where.length);
        break;
      case operation_kind::read:
      case operation_kind::flush:
      case operation_kind::block_status:
        fresh.looked_from = model_.begin_look();
        break;
    }
    fresh.request.op.durable = fresh.change != 0 && random(4) == 0;
    if (fresh.request.op.durable) fresh.looked_from = model_.begin_look();
    io_queue& queue = queues_[random(queues_.size())];
    fresh.request.submit(queue);
    if (random(2) == 0) queue.flush();
  }

  void collect() {
    for (auto at = active_.begin(); at != active_.end();) {
      if (!at->request.is_done()) {
        ++at;
        continue;
      }
      check(*at);
      at = active_.erase(at);
    }
  }

  void check(active_request& ended) {
    const operation& op = ended.request.op;
    if (op.failure) return complain("failed", op, 0);
    switch (op.kind) {
      case operation_kind::read:
        for (std::uint64_t i = 0; i < op.length; ++i) {
          if (model_.may_be(op.offset + i, ended.request.payload()[i], ended.looked_from)) continue;
          complain("read what cannot be", op, op.offset + i);
        }
        return model_.end_look(ended.looked_from);
      case operation_kind::flush: {
        const auto stable = disk_.stable();
        for (std::uint64_t i = 0; i < shape_.size; ++i) {
          if (model_.may_be(i, stable[i], ended.looked_from)) continue;
          complain("flushed, but not stable", op, i);
        }
        return model_.end_look(ended.looked_from);
      }
      default:
        model_.end_change(ended.change);
        if (op.durable) check_durable(ended);
    }
  }

  void check_durable(const active_request& ended) {
    const operation& op = ended.request.op;
    model_.end_look(ended.looked_from);
    if (op.kind == operation_kind::trim) return;
    const auto stable = disk_.stable();
    for (std::uint64_t at = op.offset; at < op.offset + op.length; ++at) {
      if (!model_.may_be_after(at, stable[at], ended.change)) complain("durable, but not stable", op, at);
    }
  }

  void check_the_end() {
    const operation nothing;
    const auto image = disk_.image();
    const image_model::time now = model_.begin_look();
    for (std::uint64_t i = 0; i < image.size(); ++i) {
      if (!model_.may_be(i, image[i], now)) complain("left what cannot be", nothing, i);
    }
    model_.end_look(now);
    if (!active_.empty()) complain("not done", active_.front().request.op, 0);
    if (!disk_.violations().empty()) complaint_ = disk_.violations().front();
  }

  void complain(const char* what, const operation& op, std::uint64_t at) {
    if (!complaint_.empty()) return;
    complaint_ = std::string(what) + ": kind " + std::to_string(static_cast<int>(op.kind)) + ", " +
                 std::to_string(op.length) + " bytes at " + std::to_string(op.offset) + ", byte " +
                 std::to_string(at);
  }

  std::mt19937_64 generator_;
  geometry shape_;
  fake_disk disk_;
  std::array<fake_queue, 3> queues_{fake_queue(disk_), fake_queue(disk_), fake_queue(disk_)};
  block_device device_;
  image_model model_;
  std::list<active_request> active_;
  std::string complaint_;
};

geometry small_shape(std::uint64_t size, std::uint64_t direct_end, std::uint32_t alignment, bool can_zero) {
  return {.size = size,
          .direct_end = direct_end,
          .alignment = alignment,
          .zeroing_granularity = 4 * alignment,
          .can_punch_hole = can_zero,
          .can_zero_range = can_zero};
}

void check_many_seeds(const geometry& shape, std::uint64_t seeds) {
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    random_load load(shape, seed, seed % 2 == 1);
    load.go(600);
    CAPTURE(seed);
    REQUIRE(load.complaint() == "");
  }
}

}  // namespace

TEST_CASE("random_requests_to_whole_blocks_of_direct_access_agree_with_the_model") {
  check_many_seeds(small_shape(512, 512, 16, true), 60);
}

TEST_CASE("random_requests_to_a_file_with_a_buffered_end_agree_with_the_model") {
  check_many_seeds(small_shape(517, 512, 16, true), 60);
  check_many_seeds(small_shape(543, 448, 16, true), 60);
}

TEST_CASE("random_requests_where_zeroes_must_be_written_agree_with_the_model") {
  check_many_seeds(small_shape(517, 512, 16, false), 60);
}

TEST_CASE("random_requests_through_the_page_cache_agree_with_the_model") {
  check_many_seeds(small_shape(300, 0, 1, true), 40);
}

TEST_CASE("random_requests_to_one_or_two_blocks_agree_with_the_model") {
  check_many_seeds(small_shape(64, 64, 64, false), 40);
  check_many_seeds(small_shape(131, 128, 64, true), 40);
}

TEST_CASE("random_requests_in_blocks_of_common_size_agree_with_the_model") {
  check_many_seeds(small_shape(4096 + 700, 4096, 512, true), 4);
  check_many_seeds(small_shape(3 * 4096, 3 * 4096, 4096, true), 2);
}

TEST_CASE("loops_on_threads_of_their_own_never_lose_a_write_of_another", "[loops]") {
  // Stripes that no block boundary fits: each thread owns every third of them.
  constexpr std::uint64_t stripe = 24;
  constexpr std::uint64_t stripes = 36;
  constexpr unsigned thread_count = 3;
  constexpr int rounds = 300;
  const geometry shape = small_shape(stripe * stripes, 832, 16, true);
  fake_disk disk(shape, 5);
  disk.short_counts(true);
  block_device device(shape, disk.file());
  std::vector<std::byte> expected(shape.size);
  std::atomic<unsigned> working{thread_count};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < thread_count; ++number) {
    threads.emplace_back([&, number] {
      std::mt19937 generator(number);
      fake_queue queue(disk);
      const auto carry_out = [&](device_request& request) {
        request.submit(queue);
        queue.flush();
        while (!request.is_done()) {
          disk.step();
          queue.drain();
        }
        if (request.failure()) ++failures;
      };
      for (int round = 0; round < rounds; ++round) {
        const std::uint64_t offset =
            stripe * (number + thread_count * (generator() % (stripes / thread_count)));
        const auto mine = expected.begin() + static_cast<std::ptrdiff_t>(offset);
        const auto value = static_cast<std::byte>(generator());
        switch (generator() % 4) {
          case 0: {
            device_request zeroes(device, operation_kind::write_zeroes, offset, stripe);
            carry_out(zeroes);
            std::fill_n(mine, stripe, std::byte{0});
            break;
          }
          case 1: {
            device_request flush(device, operation_kind::flush);
            carry_out(flush);
            break;
          }
          default: {
            device_request write(device, operation_kind::write, offset, stripe);
            carry_out(write.filled_with(value));
            std::fill_n(mine, stripe, value);
            break;
          }
        }
        device_request read(device, operation_kind::read, offset, stripe);
        carry_out(read);
        if (!std::equal(mine, mine + stripe, read.payload().begin())) ++failures;
      }
      --working;
      // Others' syncs and grants may still pass through this queue.
      while (working > 0 || queue.outstanding() > 0) {
        disk.step();
        if (queue.drain() == 0) std::this_thread::yield();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(disk.image() == expected);
  CHECK(disk.violations() == std::vector<std::string>{});
}
