// Every operation of whole sessions fails once, each in a run of its own: the request that it belongs to gets
// the right error, all others succeed, a failed sync reaches every client's next flush, and nothing is left
// behind. Two clients on two loops ask for everything at once, each in a part of the disk of its own, so that
// where an operation failed tells whose it was.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <random>

#include "storage/alignment.hpp"
#include "tests/server/log_lines.hpp"
#include "tests/simulation/simulated_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using protocol::command;
using protocol::reply_mode;
using storage::io_op;
namespace flag = protocol::command_flag;

namespace {

constexpr std::uint32_t eperm = 1, eio = 5, enomem = 12, enospc = 28;
constexpr std::uint64_t block = 512;
// What nobody changes, with a hole in it; then a part for each client; then the odd end, the first one's.
constexpr std::uint64_t common = 64 * 1024, hole = 16 * 1024, hole_length = 32 * 1024;
constexpr std::uint64_t part = 32 * 1024, direct_end = common + 2 * part + 4096, size = direct_end + 100;
constexpr std::byte old{7}, fresh{9}, zero{0};

storage::geometry sparse_file() {
  return {.size = size,
          .direct_end = direct_end,
          .alignment = block,
          .zeroing_granularity = 4096,
          .may_have_holes = true,
          .can_punch_hole = true,
          .can_zero_range = true};
}

storage::geometry disk_with_discard() {
  storage::geometry shape = sparse_file();
  shape.is_block_device = shape.can_discard = true;
  shape.may_have_holes = shape.can_punch_hole = false;
  return shape;
}

std::uint32_t nbd_error(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return enospc;
    case ENOMEM:
      return enomem;
    case EROFS:
    case EPERM:
      return eperm;
    default:
      return eio;
  }
}

bool is_want_of_room(int error) {
  return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

bool is_durable(const protocol::request& asked) {
  return asked.what == command::flush || (asked.flags & flag::fua) != 0;
}

bool is_change(const protocol::request& asked) {
  return asked.what == command::write || asked.what == command::trim || asked.what == command::write_zeroes;
}

// Something of everything.
std::vector<protocol::request> everything(std::size_t client, reply_mode mode) {
  const std::uint64_t base = common + client * part;
  std::vector<protocol::request> all{
      {.what = command::write, .offset = base, .length = 2048},
      {.what = command::write, .offset = base + 4196, .length = 1000},
      {.what = command::write, .flags = flag::fua, .offset = base + 8192, .length = 1024},
      {.what = command::write, .flags = flag::fua, .offset = base + 12'295, .length = 1500},
      {.what = command::flush},
      {.what = command::trim, .flags = flag::fua, .offset = base + 16'384, .length = 4096},
      {.what = command::write_zeroes, .offset = base + 20'400, .length = 4096 + 700},
      {.what = command::write_zeroes,
       .flags = flag::no_hole | flag::fua,
       .offset = base + 28'672,
       .length = 4096},
      {.what = command::read, .offset = 100 + client * 8192, .length = 3000},
      {.what = command::read, .offset = 0, .length = common},
      {.what = command::flush}};
  if (client == 0)
    all.push_back({.what = command::write, .offset = direct_end - block, .length = block + 100});
  if (client == 1) all.push_back({.what = command::read, .offset = direct_end, .length = 100});
  if (mode != reply_mode::simple)
    all.push_back({.what = command::block_status, .offset = 0, .length = common});
  return all;
}

// A disk in memory, and two clients with everything under way.
class busy_server {
 public:
  busy_server(const storage::geometry& shape, reply_mode mode, std::uint64_t seed = 5)
      : server(shape, 2, [generator = std::mt19937_64(seed)](std::uint64_t limit) mutable {
          return generator() % limit;
        }) {
    server.disk.fill(byte_vector(size, old));
    if (shape.may_have_holes) server.disk.make(storage::extent_kind::hole, hole, hole_length);
    for (std::size_t i = 0; i < clients.size(); ++i) {
      clients[i] =
          std::make_unique<simulated_client>(server, client_settings{.replies = mode, .loop_number = i});
      // The handshake comes first: what follows is about requests.
      (void)clients[i]->answer_to({.what = command::read, .offset = 0, .length = 1});
    }
    server.disk.forget_log();
  }
  ~busy_server() {
    for (auto& each : clients) {
      if (each) each->hang_up();
    }
    server.settle();
  }

  void ask_for_everything() {
    for (std::size_t i = 0; i < clients.size(); ++i) {
      for (const auto& asked : everything(i, clients[i]->mode())) {
        clients[i]->ask(asked, byte_vector(asked.what == command::write ? asked.length : 0, fresh));
      }
    }
    for (bool moved = true; moved;) {
      moved = false;
      for (auto& each : clients) moved |= each->say(size);
    }
    for (std::size_t i = 0; i < clients.size(); ++i) answers[i] = clients[i]->all_answers();
  }

  std::uint32_t flush(simulated_client& by) { return by.answer_to({.what = command::flush}).error; }

  // Each byte, of the disk and of every answered READ, is what it was, or what a change that may have come
  // this far made of it. What is read under a change may be either.
  bool has_only_what_was_asked_for() const {
    byte_vector before(size, old);
    if (server.disk.shape().may_have_holes) {
      std::fill_n(before.begin() + std::ptrdiff_t{hole}, hole_length, zero);
    }
    std::vector<bool> may_be_old(size, true), may_be_new(size, false);
    byte_vector made(size, zero);
    for (const auto& list : answers) {
      for (const answer& each : list) {
        if (!is_change(each.asked)) continue;
        for (std::uint64_t at = each.asked.offset; at < each.asked.offset + each.asked.length; ++at) {
          made[at] = each.asked.what == command::write ? fresh : zero;
          may_be_new[at] = true;
          may_be_old[at] = each.error != 0 || each.asked.what == command::trim;
        }
      }
    }
    const auto is_explained = [&](std::uint64_t at, std::byte found, bool is_over) {
      const bool is_old = found == before[at] && (may_be_old[at] || !is_over);
      const bool is_discarded = may_be_old[at] && may_be_new[at] && found == storage::fake_disk::discarded;
      return is_old || is_discarded || (may_be_new[at] && found == made[at]);
    };
    const byte_vector image = server.disk.image();
    for (std::uint64_t at = 0; at < size; ++at) {
      if (!is_explained(at, image[at], true)) return false;
    }
    for (const auto& list : answers) {
      for (const answer& each : list) {
        if (each.asked.what != command::read || each.error != 0) continue;
        if (each.data.size() != each.asked.length) return false;
        for (std::uint64_t at = 0; at < each.asked.length; ++at) {
          if (!is_explained(each.asked.offset + at, each.data[at], false)) return false;
        }
      }
    }
    return true;
  }

  log_lines log;
  simulated_server server;
  std::array<std::unique_ptr<simulated_client>, 2> clients;
  std::array<std::vector<answer>, 2> answers;
};

std::vector<answer> failed(const busy_server& in) {
  std::vector<answer> found;
  for (const auto& list : in.answers) {
    std::ranges::copy_if(list, std::back_inserter(found), [](const answer& each) { return each.error != 0; });
  }
  return found;
}

bool touches(const protocol::request& asked, const storage::fake_disk::record& disturbed) {
  const std::uint64_t begin = storage::round_down(asked.offset, block);
  const std::uint64_t end = storage::round_up(asked.offset + asked.length, block);
  return disturbed.offset < end && begin < disturbed.offset + disturbed.length;
}

// What is told of a failed sync: a flush must not be asked for again when there is room.
std::uint32_t told_of_sync(int error, command to) {
  return nbd_error(is_want_of_room(error) && to == command::flush ? EIO : error);
}

// Every client that has not heard of a failed sync hears of it by its next flush, and once.
void require_news_of_a_failed_sync(busy_server& in, bool is_news, int error) {
  const std::uint32_t wanted = told_of_sync(error, command::flush);
  bool anybody_heard = false;
  for (std::size_t i = 0; i < in.clients.size(); ++i) {
    const bool has_heard = std::ranges::any_of(
        in.answers[i], [](const answer& each) { return each.error != 0 && is_durable(each.asked); });
    REQUIRE(in.flush(*in.clients[i]) == (is_news && !has_heard ? wanted : 0));
    REQUIRE(in.flush(*in.clients[i]) == 0);
    anybody_heard |= has_heard;
  }
  REQUIRE((anybody_heard || !is_news));
  simulated_client newcomer(in.server, {.replies = in.clients[0]->mode()});
  REQUIRE(in.flush(newcomer) == 0);
  newcomer.hang_up();
}

// One line for each client whose requests failed, and it says what failed.
void require_the_log_to_say(const busy_server& in, int error) {
  std::size_t clients = 0;
  for (const auto& list : in.answers) {
    if (std::ranges::any_of(list, [](const answer& each) { return each.error != 0; })) ++clients;
  }
  REQUIRE(in.log.count_with(" failed: ") >= clients);
  REQUIRE(in.log.count_with(" failed: ") <= std::max(clients, failed(in).size()));
  for (const std::string& line : in.log.all()) {
    if (line.find(" failed: ") == std::string::npos) continue;
    CAPTURE(line);
    REQUIRE(line.find(std::strerror(error)) != std::string::npos);
    REQUIRE(line.find(" bytes at ") != std::string::npos);
  }
}

// Of a sync, all that waited for it fail and nothing else does.
void require_only_flushes_to_fail(const busy_server& in, int error) {
  const auto all = failed(in);
  REQUIRE_FALSE(all.empty());
  for (const answer& each : all) {
    REQUIRE(is_durable(each.asked));
    REQUIRE(each.error == told_of_sync(error, each.asked.what));
  }
}

void require_the_one_concerned_to_fail(busy_server& in, const storage::fake_disk::record& disturbed,
                                       int error) {
  const std::uint32_t wanted = nbd_error(error);
  const bool is_a_way_of_zeroing = disturbed.op == io_op::punch_hole || disturbed.op == io_op::zero_range ||
                                   disturbed.op == io_op::discard;
  std::vector<answer> all = failed(in);
  if (is_a_way_of_zeroing && error == EOPNOTSUPP) {
    REQUIRE(all.empty());
    return;
  }
  // A read that cannot find out where the holes are reads everything.
  if (disturbed.op == io_op::map && disturbed.length != common) {
    REQUIRE(all.empty());
    return;
  }
  // A durable write that failed may have been its sync, which was others' as well.
  const bool is_sync_too =
      disturbed.durable && (disturbed.op == io_op::buffered_write || !is_want_of_room(error));
  if (is_sync_too) {
    std::erase_if(all, [&](const answer& each) {
      return is_durable(each.asked) && each.error == told_of_sync(error, each.asked.what) &&
             !touches(each.asked, disturbed);
    });
  }
  REQUIRE(all.size() == 1);
  REQUIRE(touches(all.front().asked, disturbed));
  REQUIRE(all.front().error == wanted);
  if (disturbed.op == io_op::map) REQUIRE(all.front().asked.what == command::block_status);
}

// False when there is no n-th operation of this kind.
bool survives_failure(const storage::geometry& shape, reply_mode mode, std::uint64_t seed, io_op op,
                      std::uint64_t n, int error) {
  busy_server in(shape, mode, seed);
  in.server.disk.fail_nth(op, n, error);
  in.ask_for_everything();
  const auto disturbed = in.server.disk.last_disturbed();
  if (!disturbed) {
    REQUIRE(failed(in).empty());
    return false;
  }
  if (op == io_op::sync) {
    require_only_flushes_to_fail(in, error);
  } else {
    require_the_one_concerned_to_fail(in, *disturbed, error);
  }
  require_the_log_to_say(in, error);
  REQUIRE(in.has_only_what_was_asked_for());
  const bool is_news =
      op == io_op::sync || (disturbed->durable && (op == io_op::buffered_write || !is_want_of_room(error)));
  require_news_of_a_failed_sync(in, is_news, error);
  for (auto& each : in.clients) each->hang_up();
  in.server.settle();
  REQUIRE(in.server.leftovers().empty());
  return true;
}

// ThreadSanitizer is slow, and has little to see in one thread: every fourth is enough for it.
#ifdef __SANITIZE_THREAD__
constexpr std::uint64_t stride = 4;
#else
constexpr std::uint64_t stride = 1;
#endif

// How many there are, about. Each fails in two orders of all that happens.
std::uint64_t survives_each_failure(const storage::geometry& shape, io_op op, int error) {
  struct pass {
    std::uint64_t seed, first, every;
  };
  std::uint64_t count = 0;
  for (const reply_mode mode : {reply_mode::simple, reply_mode::extended}) {
    for (const pass& each : {pass{5, 0, 1}, pass{6, 0, 2}, pass{7, 1, 2}}) {
      for (std::uint64_t n = each.first;; n += each.every * stride, count += each.every * stride) {
        CAPTURE(storage::name_of(op), n, error, static_cast<int>(mode), each.seed);
        if (!survives_failure(shape, mode, each.seed, op, n, error)) break;
      }
    }
  }
  return count / 3;
}

}  // namespace

TEST_CASE("whichever_read_fails_its_request_alone_gets_the_error") {
  const int error = GENERATE(EIO, ENOMEM, EOPNOTSUPP);
  CHECK(survives_each_failure(sparse_file(), io_op::read, error) >= 20);
  CHECK(survives_each_failure(sparse_file(), io_op::buffered_read, error) >= 2);
}

TEST_CASE("whichever_write_fails_its_request_alone_gets_the_error_and_a_durable_one_is_a_failed_sync") {
  const int error = GENERATE(EIO, ENOSPC, EDQUOT, EROFS);
  CHECK(survives_each_failure(sparse_file(), io_op::write, error) >= 20);
  CHECK(survives_each_failure(sparse_file(), io_op::buffered_write, error) >= 2);
}

TEST_CASE("whichever_sync_fails_every_client_hears_of_it_by_its_next_flush_and_nothing_else_fails") {
  const int error = GENERATE(EIO, ENOSPC);
  CHECK(survives_each_failure(sparse_file(), io_op::sync, error) >= 4);
}

TEST_CASE("whichever_zeroing_fails_its_request_alone_gets_the_error_or_another_way_is_taken") {
  const int error = GENERATE(EIO, ENOSPC, EOPNOTSUPP);
  CHECK(survives_each_failure(sparse_file(), io_op::punch_hole, error) >= 8);
  CHECK(survives_each_failure(sparse_file(), io_op::zero_range, error) >= 4);
  CHECK(survives_each_failure(disk_with_discard(), io_op::discard, error) >= 4);
}

TEST_CASE("whichever_map_fails_only_a_block_status_gets_the_error") {
  const int error = GENERATE(EIO, ENOMEM);
  CHECK(survives_each_failure(sparse_file(), io_op::map, error) >= 4);
}

TEST_CASE("whichever_operation_ends_short_its_request_is_finished_and_without_progress_it_fails") {
  const reply_mode mode = GENERATE(reply_mode::simple, reply_mode::extended);
  const std::uint64_t length = GENERATE(0U, 100U, 512U, 700U);
  for (const io_op op : {io_op::read, io_op::write, io_op::buffered_read, io_op::buffered_write}) {
    for (std::uint64_t n = 0;; n += stride) {
      CAPTURE(storage::name_of(op), n, length);
      busy_server in(sparse_file(), mode);
      in.server.disk.cut_nth(op, n, length);
      in.ask_for_everything();
      const auto disturbed = in.server.disk.last_disturbed();
      const bool is_direct = op == io_op::read || op == io_op::write;
      // Less than a block is no progress: a file system that ends there would end there again.
      const bool is_progress =
          disturbed && (length >= (is_direct ? block : 1) || length >= disturbed->length);
      if (!disturbed || is_progress) {
        REQUIRE(failed(in).empty());
      } else {
        require_the_one_concerned_to_fail(in, *disturbed, EIO);
      }
      REQUIRE(in.has_only_what_was_asked_for());
      if (!disturbed) break;
    }
  }
}

// Dead sessions with failing requests in flight leave nothing behind either.
TEST_CASE("whichever_operation_fails_while_its_client_leaves_everything_goes_back") {
  const bool leaves_both = GENERATE(false, true);
  for (std::uint64_t n = 0;; n += stride) {
    CAPTURE(n, leaves_both);
    busy_server in(sparse_file(), reply_mode::structured);
    in.server.disk.fail_nth_of_any(n, EIO);
    for (std::size_t i = 0; i < in.clients.size(); ++i) {
      for (const auto& asked : everything(i, reply_mode::structured)) {
        in.clients[i]->ask(asked, byte_vector(asked.what == command::write ? asked.length : 0, fresh));
      }
      in.clients[i]->say(size);
    }
    for (std::uint64_t i = 0; i < 20 + n; ++i) {
      for (simulated_loop& each : in.server.loops) (void)each.run_one();
      (void)in.server.disk.step();
    }
    in.clients[0]->hang_up();
    if (leaves_both) in.clients[1]->hang_up();
    in.server.settle();
    if (!leaves_both) {
      REQUIRE(in.clients[1]->all_answers().size() == everything(1, reply_mode::structured).size());
      in.clients[1]->hang_up();
      in.server.settle();
    }
    REQUIRE(in.server.leftovers().empty());
    if (in.server.disk.failures_injected() == 0) break;
  }
}
