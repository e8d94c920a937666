// Rule 24, in the one function that keeps it, and the answers made from it.
#include "protocol/block_status.hpp"

#include <vector>

#include "protocol/replies.hpp"
#include "tests/protocol/bytes.hpp"
#include "tests/protocol/setting.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

namespace {

constexpr std::uint64_t tebibyte = std::uint64_t{1} << 40U;

using extents = std::vector<status_extent>;

constexpr std::uint32_t data = 0, hole = state_flag::hole | state_flag::zero, zero = state_flag::zero;

// What a client that chose base:allocation is told, of a request of it and what was found.
extents told(const setting& with, std::uint64_t offset, std::uint64_t length, const extents& found,
             unsigned flags = 0) {
  const request asked = with.ask(command::block_status, offset, length, flags);
  REQUIRE(validate(asked, with.agreed) == error::none);
  return fitted_extents(found, asked, with.agreed);
}

// The rule itself, whatever was found.
void check_rule(const extents& list, const request& asked, const terms& agreed) {
  const std::uint64_t size = agreed.chosen->size;
  const std::uint64_t block = agreed.block_sizes_requested ? agreed.chosen->block_size_min : 1;
  REQUIRE_FALSE(list.empty());
  REQUIRE(list.size() <= status_extents_max);
  std::uint64_t before = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i].length == 0 || before >= asked.length) FAIL("extent " << i);
    if (i > 0 && list[i].flags == list[i - 1].flags) FAIL("like its neighbour: extent " << i);
    before += list[i].length;
    const bool is_cut_short = asked.offset + before == size || list.size() == 1;
    if (list[i].length % block != 0 && !is_cut_short) FAIL("not in whole blocks: extent " << i);
  }
  CHECK(before <= size - asked.offset);
  if ((asked.flags & command_flag::req_one) != 0) {
    CHECK(list.size() == 1);
    CHECK(list[0].length <= asked.length);
  }
}

// Byte by byte: no flag is told that was not found, and without blocks none is withheld.
void check_truth(const extents& list, const extents& found, const terms& agreed) {
  const auto spread = [](const extents& from) {
    std::vector<std::uint32_t> flags;
    for (const status_extent& each : from) flags.insert(flags.end(), each.length, each.flags);
    return flags;
  };
  const std::vector<std::uint32_t> said = spread(list), true_flags = spread(found);
  for (std::size_t i = 0; i < said.size() && i < true_flags.size(); ++i) {
    if ((said[i] & ~true_flags[i]) != 0) FAIL("told, not found, at " << i);
    if (!agreed.block_sizes_requested && said[i] != true_flags[i]) FAIL("found, not told, at " << i);
  }
}

}  // namespace

TEST_CASE("rule 24: what_was_found_is_told") {
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode);
    const extents found = {{4096, data}, {8192, hole}, {4096, zero}, {512, data}};
    CHECK(told(with, 0, 16'896, found) == found);
    CHECK(told(with, 4096, 16'896, found) == found);
  }
}

TEST_CASE("rule 24: none_is_empty_and_consecutive_ones_differ") {
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode);
    CHECK(told(with, 0, 8192,
               {{0, hole}, {1024, data}, {0, zero}, {1024, data}, {2048, hole}, {0, data}, {4096, hole}}) ==
          extents{{2048, data}, {6144, hole}});
  }
}

TEST_CASE("rule 24: all_but_the_last_lie_within_the_request") {
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode);
    const extents found = {{4096, data}, {4096, hole}, {4096, zero}};
    CHECK(told(with, 0, 4096, found) == extents{{4096, data}});
    CHECK(told(with, 0, 4097, found) == extents{{4096, data}, {4096, hole}});
    CHECK(told(with, 0, 1, found) == extents{{4096, data}});
    CHECK(told(with, 0, 8192, found) == extents{{4096, data}, {4096, hole}});
  }
}

TEST_CASE("rule 24: req_one_gives_exactly_one_no_longer_than_the_request") {
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode, 8 * gibibyte);
    const extents found = {{4096, data}, {4096, hole}};
    constexpr unsigned one = command_flag::req_one;
    CHECK(told(with, 0, 8192, found, one) == extents{{4096, data}});
    CHECK(told(with, 0, 4096, found, one) == extents{{4096, data}});
    CHECK(told(with, 0, 512, found, one) == extents{{512, data}});
    CHECK(told(with, 0, 1, {{8 * gibibyte, hole}}, one) == extents{{1, hole}});
    CHECK(told(with, 0, length_max, {{8 * gibibyte, hole}}, one) == extents{{length_max, hole}});
    CHECK(told(with, 0, 512, {}, one) == extents{{512, data}});
  }
}

TEST_CASE("rule 24: at_most_16384_extents_are_told") {
  CHECK(status_extents_max == 16384);
  CHECK(status_extents_max <= 1U << 20U);
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode);
    for (const std::size_t count : {status_extents_max, status_extents_max + 1, 3 * status_extents_max}) {
      extents found;
      for (std::size_t i = 0; i < count; ++i) found.push_back({512, i % 2 == 0 ? data : hole});
      found.push_back({0, zero});
      const extents list = told(with, 0, 512 * count, found);
      CHECK(list.size() == status_extents_max);
      CHECK(list.back() == status_extent{512, hole});
    }
  }
}

TEST_CASE("rule 24: more_of_the_last_kind_lengthens_a_full_list") {
  const setting with(reply_mode::structured);
  extents found;
  for (std::size_t i = 0; i < status_extents_max; ++i) found.push_back({512, i % 2 == 0 ? data : hole});
  found.push_back({1024, hole});
  found.push_back({1024, data});
  const extents list = told(with, 0, 512 * status_extents_max + 4096, found);
  CHECK(list.size() == status_extents_max);
  CHECK(list.back() == status_extent{1536, hole});
}

TEST_CASE("rule 24: lengths_near_2_to_the_32_do_not_wrap") {
  const setting compact(reply_mode::structured, tebibyte), extended(reply_mode::extended, tebibyte);
  for (const std::uint64_t length : {length_max - 65'536, length_max - 1, length_max, length_max + 1,
                                     length_max + 2, 8 * gibibyte, 8 * gibibyte - 1, tebibyte}) {
    CAPTURE(length);
    CHECK(told(extended, 0, length_max, {{length, hole}}) == extents{{length, hole}});
    const std::uint64_t fits = length <= length_max ? length : 0xffff0000;
    CHECK(told(compact, 0, length_max, {{length, hole}}) == extents{{fits, hole}});
    // The same after another, which makes it the last that can be told.
    CHECK(told(compact, 0, length_max, {{512, data}, {length, hole}, {512, data}}).at(1) ==
          status_extent{fits, hole});
    // The same in pieces that only together are too long.
    CHECK(told(compact, 0, length_max, {{length / 2, hole}, {length - length / 2, hole}}) ==
          extents{{fits, hole}});
  }
}

TEST_CASE("rule 24: after_a_length_that_had_to_be_cut_the_list_ends") {
  // Asked for 64 bits by a client that has 32: no valid request is this long, but the list does not depend on
  // that.
  const setting with(reply_mode::structured, tebibyte);
  const request asked = with.ask(command::block_status, 0, 16 * gibibyte);
  CHECK(fitted_extents(extents{{512, data}, {8 * gibibyte, hole}, {512, data}}, asked, with.agreed) ==
        extents{{512, data}, {0xffff0000, hole}});
}

TEST_CASE("rule 24: nothing_found_is_told_as_data_which_is_always_safe") {
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode, 8 * gibibyte);
    CHECK(told(with, 512, 4096, {}) == extents{{4096, data}});
    CHECK(told(with, 512, 4096, {{0, hole}, {0, zero}}) == extents{{4096, data}});
    CHECK(told(with, 0, length_max, {}) == extents{{length_max, data}});
  }
}

TEST_CASE("rule 24: nothing_is_told_past_the_end_of_the_export") {
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode, 10'000);
    CHECK(told(with, 8192, 1000, {{4096, hole}}) == extents{{1808, hole}});
    CHECK(told(with, 8192, 1808, {{1000, data}, {~std::uint64_t{0}, hole}, {512, data}}) ==
          extents{{1000, data}, {808, hole}});
    CHECK(told(with, 0, 10'000, {{~std::uint64_t{0}, hole}, {~std::uint64_t{0}, hole}}) ==
          extents{{10'000, hole}});
  }
}

TEST_CASE("rule 24: extents_are_whole_blocks_for_those_who_asked_for_block_sizes") {
  for (const reply_mode mode : every::chunked_mode) {
    setting with(mode, 10'000);
    with.offered.block_size_min = 512;
    const extents found = {{100, data}, {412, hole}, {1000, hole}, {24, zero}, {8464, data}};
    CHECK(told(with, 0, 512, found) == extents{{100, data}, {1412, hole}});

    with.agreed.block_sizes_requested = true;
    // The third block is hole but for its last 24 bytes, which are zero and allocated: zero is what is
    // common.
    CHECK(told(with, 0, 9728, found) == extents{{512, data}, {512, hole}, {512, zero}, {8464, data}});
    CHECK(told(with, 0, 512, found) == extents{{512, data}});
    // The request ends where the last whole block does; what is cut short by the end of the export follows.
    CHECK(told(with, 9216, 512, {{784, hole}}) == extents{{784, hole}});
    CHECK(told(with, 9216, 512, {{512, hole}, {272, data}}) == extents{{512, hole}});
  }
}

TEST_CASE("rule 24: a_block_in_many_pieces_is_one_block") {
  setting with(reply_mode::extended, 4096);
  with.offered.block_size_min = 512;
  with.agreed.block_sizes_requested = true;
  extents found;
  for (int i = 0; i < 4096; ++i) found.push_back({1, i < 1024 ? hole : (i % 3 == 0 ? hole : zero)});
  CHECK(told(with, 0, 4096, found) == extents{{1024, hole}, {3072, zero}});
}

TEST_CASE("rule 24: what_ends_in_the_middle_of_a_block_is_told_up_to_there_only_if_it_is_all") {
  setting with(reply_mode::extended, 1U << 20U);
  with.offered.block_size_min = 4096;
  with.agreed.block_sizes_requested = true;
  CHECK(told(with, 0, 8192, {{4096, data}, {100, hole}}) == extents{{4096, data}});
  CHECK(told(with, 0, 8192, {{100, hole}}) == extents{{100, hole}});
}

TEST_CASE("rule 24: every_list_keeps_the_rule_whatever_was_found") {
  std::uint64_t seed = 24;
  const auto random = [&](std::uint64_t bound) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return (seed >> 33U) % bound;
  };
  for (int round = 0; round < 3000; ++round) {
    const reply_mode mode = random(2) == 0 ? reply_mode::structured : reply_mode::extended;
    setting with(mode, 1 + random(6000));
    with.offered.block_size_min = 1U << random(10);
    const std::uint64_t offset = random(with.offered.size), rest = with.offered.size - offset;
    request asked = with.ask(command::block_status, offset, 1 + random(rest),
                             random(4) == 0 ? unsigned{command_flag::req_one} : 0U);
    with.agreed.block_sizes_requested = true;
    with.agreed.block_sizes_requested = validate(asked, with.agreed) == error::none;
    extents found;
    for (std::uint64_t count = random(12); count > 0; --count)
      found.push_back({random(1000), static_cast<std::uint32_t>(random(4))});
    CAPTURE(round, mode, offset, asked.length, asked.flags, with.offered.size, with.offered.block_size_min);
    const extents list = fitted_extents(found, asked, with.agreed);
    check_rule(list, asked, with.agreed);
    check_truth(list, found, with.agreed);
  }
}

TEST_CASE("rule 25: unwritten_space_and_holes_are_told_apart") {
  CHECK(state_flag::hole == 1);
  CHECK(state_flag::zero == 2);
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode);
    CHECK(told(with, 0, 8192, {{4096, zero}, {4096, hole}}) == extents{{4096, zero}, {4096, hole}});
  }
}

TEST_CASE("rule 21: the_answer_is_one_chunk_with_done") {
  const extents found = {{4096, data}, {8192, hole}};
  byte_vector structured = packet().text("before"), extended = packet().text("before");
  const setting compact_client(reply_mode::structured), extended_client(reply_mode::extended);
  const request asked{command::block_status, 0, 0x0123456789abcdef, 512, 12'288};
  append_block_status(structured, asked, compact_client.agreed, 7, found);
  append_block_status(extended, asked, extended_client.agreed, 7, found);
  CHECK(structured == byte_vector(packet()
                                      .text("before")
                                      .u32(0x668e33ef)
                                      .u16(1)
                                      .u16(5)
                                      .u64(0x0123456789abcdef)
                                      .u32(4 + 2 * 8)
                                      .u32(7)
                                      .u32(4096)
                                      .u32(0)
                                      .u32(8192)
                                      .u32(3)));
  CHECK(extended == byte_vector(packet()
                                    .text("before")
                                    .u32(0x6e8a278c)
                                    .u16(1)
                                    .u16(6)
                                    .u64(0x0123456789abcdef)
                                    .u64(512)
                                    .u64(8 + 2 * 16)
                                    .u32(7)
                                    .u32(2)
                                    .u64(4096)
                                    .u64(0)
                                    .u64(8192)
                                    .u64(3)));
}

TEST_CASE("CVE-2025-47711, CVE-2025-47712: block_status_of_4_gib_is_an_answer_not_an_assertion") {
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode, 16 * gibibyte);
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{1}, length_max}) {
      for (const unsigned flags : {0U, unsigned{command_flag::req_one}}) {
        for (const std::uint64_t length : {length_max - 511, length_max}) {
          const extents list = told(with, offset, length, {{8 * gibibyte, hole}}, flags);
          REQUIRE(list.size() == 1);
          CHECK(list[0].length > 0);
          if (flags != 0) CHECK(list[0].length == length);
        }
      }
    }
  }
  CHECK(setting(reply_mode::simple, 16 * gibibyte).check(command::block_status, 0, length_max) ==
        error::einval);
}
