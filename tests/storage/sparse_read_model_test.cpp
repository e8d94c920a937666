// Random changes and reads that may leave out holes, of several clients on several queues, held against what
// each cell of the disk may be at each time. A cell is 512 bytes that are only ever changed together.
#include <algorithm>
#include <array>
#include <cerrno>
#include <list>
#include <random>
#include <string>
#include <vector>

#include "storage/block_device.hpp"
#include "storage/sparse_read.hpp"
#include "tests/storage/device_request.hpp"
#include "tests/storage/fake_queue.hpp"
#include "tests/storage/image_model.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr std::uint64_t kib = 1024, mib = 1024 * kib;
constexpr std::uint64_t cell = 512;

class sparse_load {
 public:
  sparse_load(const geometry& shape, std::uint64_t seed)
      : generator_(seed),
        shape_(shape),
        disk_(shape, seed),
        device_(shape, disk_.file()),
        model_(shape.size / cell) {
    disk_.short_counts(seed % 2 == 1);
  }

  // Empty, or what went wrong first.
  const std::string& complaint() const { return complaint_; }
  std::uint64_t sparse_replies() const { return sparse_replies_; }
  std::uint64_t whole_replies() const { return whole_replies_; }

  // Makes a region dense, for that is remembered.
  void fill_a_region() {
    submit(operation_kind::write, 0, mib);
    finish();
  }

  void go(int rounds) {
    for (int round = 0; round < rounds && complaint_.empty(); ++round) {
      if (active_.size() < in_flight_max && random(2) == 0) submit_one();
      if (random(50) == 0) disk_.fail_nth(io_op::map, random(10), EIO);
      for (std::uint64_t i = random(6); i > 0; --i) disk_.step();
      queues_[random(queues_.size())].drain();
      collect();
    }
    finish();
    check_the_end();
  }

 private:
  static constexpr std::size_t in_flight_max = 10;

  struct active_request {
    active_request(block_device& device, operation_kind kind, std::uint64_t offset, std::uint64_t length)
        : request(device, kind, offset, length) {}
    device_request request;
    std::size_t change = 0;
    image_model::time looked_from = 0;
  };

  std::uint64_t random(std::uint64_t limit) { return generator_() % limit; }

  void submit_one() {
    const std::uint64_t what = random(10);
    if (what < 5) {  // any bytes
      const std::uint64_t length_max = std::min<std::uint64_t>(shape_.size, 500 * kib);
      const std::uint64_t length = sparse_read::length_min + random(length_max - sparse_read::length_min + 1);
      return submit(what == 0 ? operation_kind::block_status : operation_kind::read,
                    random(shape_.size - length + 1), length);
    }
    const std::uint64_t first = random(shape_.size / cell);
    const std::uint64_t count = 1 + random(std::min<std::uint64_t>(shape_.size / cell - first, 400));
    submit(what < 7   ? operation_kind::write
           : what < 8 ? operation_kind::write_zeroes
                      : operation_kind::trim,
           first * cell, count * cell);
  }

  void submit(operation_kind kind, std::uint64_t offset, std::uint64_t length) {
    active_request& fresh = active_.emplace_back(device_, kind, offset, length);
    const std::uint64_t first = offset / cell, count = length / cell;
    switch (kind) {
      case operation_kind::write:
        fresh.change = model_.begin_change(image_model::kind::write, first, count);
        for (std::uint64_t i = 0; i < count; ++i) {
          std::ranges::fill(fresh.request.payload().subspan(i * cell, cell),
                            image_model::written(fresh.change, first + i));
        }
        break;
      case operation_kind::write_zeroes:
        fresh.change = model_.begin_change(image_model::kind::zeroes, first, count);
        fresh.request.op.keep_allocated = random(2) == 0;
        break;
      case operation_kind::trim:
        fresh.change = model_.begin_change(image_model::kind::trim, first, count);
        break;
      default:
        fresh.looked_from = model_.begin_look();
        fresh.request.op.may_skip_holes = random(8) != 0;
        fresh.request.op.extents.count_max = 1 + random(40);
        break;
    }
    io_queue& queue = queues_[random(queues_.size())];
    fresh.request.submit(queue);
    if (random(2) == 0) queue.flush();
  }

  void finish() {
    run(disk_, {&queues_[0], &queues_[1], &queues_[2]});
    collect();
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
    if (ended.change != 0) {
      model_.end_change(ended.change);
      if (op.failure) complain("failed", op, 0);
      return;
    }
    // Without its map, only this one has nothing to say.
    if (op.failure && op.kind != operation_kind::block_status) complain("failed", op, 0);
    if (!op.failure) check_parts(ended);
    model_.end_look(ended.looked_from);
  }

  void check_parts(const active_request& looked) {
    const operation& op = looked.request.op;
    const bool is_read = op.kind == operation_kind::read;
    auto parts = op.extents.items;
    if (is_read) ++(parts.empty() ? whole_replies_ : sparse_replies_);
    if (parts.empty() && is_read) parts.push_back({op.length, extent_kind::data});
    std::uint64_t at = op.offset;
    for (const extent& part : parts) {
      if (part.length == 0 || part.length > op.offset + op.length - at) return complain("extents", op, at);
      if (part.kind != extent_kind::data) {
        check_zeroes(looked, at, part.length);
      } else if (is_read) {
        check_data(looked, at, part.length);
      }
      at += part.length;
    }
    if (at == op.offset || (is_read && at != op.offset + op.length)) complain("too few extents", op, at);
  }

  void check_zeroes(const active_request& looked, std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t i = offset / cell; i <= (offset + length - 1) / cell; ++i) {
      if (model_.may_be(i, std::byte{0}, looked.looked_from)) continue;
      return complain("a hole that cannot be", looked.request.op, i * cell);
    }
  }

  void check_data(const active_request& looked, std::uint64_t offset, std::uint64_t length) {
    const auto payload = looked.request.payload();
    for (std::uint64_t at = offset; at < offset + length; ++at) {
      const std::byte found = payload[at - looked.request.op.offset];
      const bool as_before =
          at != offset && at % cell != 0 && payload[at - 1 - looked.request.op.offset] == found;
      if (as_before || model_.may_be(at / cell, found, looked.looked_from)) continue;
      return complain("read what cannot be", looked.request.op, at);
    }
  }

  void check_the_end() {
    const operation nothing;
    const auto image = disk_.image();
    const image_model::time now = model_.begin_look();
    for (std::uint64_t at = 0; at < image.size(); ++at) {
      if (!model_.may_be(at / cell, image[at], now)) return complain("left what cannot be", nothing, at);
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
  std::uint64_t sparse_replies_ = 0;
  std::uint64_t whole_replies_ = 0;
};

void check_many_seeds(const geometry& shape, std::uint64_t seeds) {
  std::uint64_t sparse_replies = 0, whole_replies = 0;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    sparse_load load(shape, seed);
    if (seed % 3 == 0 && shape.size >= mib) load.fill_a_region();
    load.go(400);
    CAPTURE(seed);
    REQUIRE(load.complaint() == "");
    sparse_replies += load.sparse_replies();
    whole_replies += load.whole_replies();
  }
  CHECK(sparse_replies > 20 * seeds);
  CHECK(whole_replies > 10 * seeds);
}

geometry shape_of(std::uint64_t size, std::uint64_t direct_end, std::uint32_t alignment) {
  return {.size = size,
          .direct_end = direct_end,
          .alignment = alignment,
          .zeroing_granularity = 4096,
          .may_have_holes = true,
          .can_punch_hole = true,
          .can_zero_range = true};
}

}  // namespace

TEST_CASE("random_reads_never_see_a_hole_where_a_write_was_answered") {
  check_many_seeds(shape_of(mib + 256 * kib, mib + 256 * kib, 512), 6);
}

TEST_CASE("random_reads_of_a_small_sparse_file_agree_with_the_model") {
  check_many_seeds(shape_of(160 * kib, 160 * kib, 4096), 10);
}

TEST_CASE("random_reads_of_a_sparse_file_with_a_buffered_end_agree_with_the_model") {
  check_many_seeds(shape_of(300 * kib + 3 * cell, 300 * kib, 4096), 10);
}

TEST_CASE("random_reads_of_a_sparse_file_through_the_page_cache_agree_with_the_model") {
  check_many_seeds(shape_of(300 * kib + cell, 0, 1), 10);
}

TEST_CASE("random_reads_where_zeroes_are_written_agree_with_the_model") {
  geometry shape = shape_of(300 * kib, 300 * kib, 512);
  shape.can_zero_range = false;  // what is to stay allocated has to be written
  check_many_seeds(shape, 10);
}
