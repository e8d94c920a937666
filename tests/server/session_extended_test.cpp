// Sessions with extended headers: what only they have.
#include <algorithm>

#include "protocol/error.hpp"
#include "tests/server/chunks.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

constexpr std::uint64_t TiB = 1024 * GiB;
constexpr std::uint32_t hole = nbd::is_hole | nbd::is_zero;

struct dialogue {
  explicit dialogue(const served_file& file = {}, bool block_sizes_requested = false)
      : on(file),
        with(on, {.block_sizes_requested = block_sizes_requested,
                  .replies = reply_mode::extended,
                  .allocation_selected = true}),
        client(with, reply_mode::extended) {}

  bool goes_on() { return client.read(0, 1000) == read_file(on.path, 0, 1000); }

  chunked_reply ask_with_payload(std::uint16_t command, std::uint64_t offset, const byte_vector& payload,
                                 std::uint16_t flags = 0) {
    flags = static_cast<std::uint16_t>(flags | nbd::payload_len);
    client.send(joined(client.header(command, 9, offset, payload.size(), flags), payload));
    return client.receive(9, offset);
  }
  chunked_reply status_of(std::uint64_t offset, std::uint64_t length, std::uint16_t flags = 0,
                          std::uint32_t context = protocol::allocation_context_id) {
    return ask_with_payload(nbd::block_status, offset, packet().u64(length).u32(context), flags);
  }

  served_loop on;
  served_session with;
  chunk_client client;
};

}  // namespace

TEST_CASE("rule 17: lengths_past_32_bits_are_served_in_one_request") {
  dialogue talk({.size = 16 * TiB - 4096});
  const std::uint64_t size = talk.on.info().size;
  write_file(talk.on.path, 5 * GiB, pattern(100'000));
  write_file(talk.on.path, 10 * TiB, pattern(100'000));
  CHECK(talk.client.ask(nbd::block_status, 0, size).extents().size() == 5);
  CHECK(talk.client.ask(nbd::write_zeroes, 4 * GiB, 5 * GiB + 4096).is_plain_success());
  CHECK((read_file(talk.on.path, 5 * GiB, 100'000) == byte_vector(100'000)));
  CHECK((read_file(talk.on.path, 10 * TiB, 100'000) == pattern(100'000)));
  CHECK(talk.client.ask(nbd::trim, 10 * TiB - 5 * GiB, 20 * GiB).is_plain_success());
  CHECK(talk.client.ask(nbd::block_status, 0, size).extents() == pieces{{size, hole}});
  CHECK(talk.on.loop.buffers.pooled_bytes() == 0);
}

TEST_CASE("rule 13: lengths_up_to_64_bits_are_compared_without_wrapping") {
  dialogue talk;
  const std::uint64_t most = ~std::uint64_t{0};
  for (const std::uint64_t length : {MiB + 1, std::uint64_t{1} << 32, std::uint64_t{1} << 63, most}) {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{1}, MiB, most}) {
      CAPTURE(length, offset);
      CHECK(talk.client.ask(nbd::trim, offset, length).error() == nbd::einval);
      CHECK(talk.client.ask(nbd::block_status, offset, length).error() == nbd::einval);
      CHECK(talk.client.ask(nbd::write_zeroes, offset, length).error() == nbd::enospc);
      CHECK(talk.client.ask(nbd::read, offset, length).error() == nbd::einval);
    }
  }
  CHECK(talk.goes_on());
}

TEST_CASE("an_extent_may_be_longer_than_32_bits") {
  dialogue talk({.size = 8 * TiB});
  CHECK(talk.client.ask(nbd::block_status, 0, 8 * TiB).extents() == pieces{{8 * TiB, hole}});
  CHECK(talk.client.ask(nbd::block_status, 1, 7 * TiB, nbd::req_one).extents() == pieces{{7 * TiB, hole}});
}

// QEMU's client, up to 10.0 at least, sends the payload and leaves out the flag.
TEST_CASE("an_extended_write_without_payload_len_has_its_payload_all_the_same") {
  dialogue talk;
  for (const std::uint64_t offset : {std::uint64_t{5}, MiB}) {
    talk.client.send(joined(talk.client.header(nbd::write, 1, offset, 100'000), pattern(100'000)));
    CHECK(talk.client.receive(1, offset).error() == (offset == MiB ? nbd::enospc : nbd::ok));
    CHECK(talk.goes_on());
  }
  CHECK((read_file(talk.on.path, 5, 100'000) == pattern(100'000)));
}

TEST_CASE("rule 16: a_payload_on_a_command_that_has_none_is_drained_and_einval") {
  dialogue talk;
  for (const std::uint16_t command :
       {nbd::read, nbd::flush, nbd::trim, nbd::cache, nbd::write_zeroes, std::uint16_t{99}}) {
    for (const std::size_t length : {1U, 12U, 4096U, 300'000U}) {
      CAPTURE(command, length);
      CHECK(talk.ask_with_payload(command, 0, pattern(length)).error() == nbd::einval);
      CHECK(talk.goes_on());
    }
  }
}

TEST_CASE("rule 14: an_extended_payload_past_32_MiB_ends_the_connection") {
  for (const std::uint64_t length : {32 * MiB + 1, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    CAPTURE(length);
    dialogue talk({.size = 64 * MiB});
    talk.client.send(talk.client.header(nbd::write, 1, 0, length, nbd::payload_len));
    CHECK(talk.with.peer.is_at_end());
    CHECK(talk.with.why() == protocol::protocol_errc::payload_too_long);
  }
}

TEST_CASE("a_compact_header_in_an_extended_session_ends_it") {
  dialogue talk;
  talk.client.send(joined(read_request(1, 0, 512), byte_vector(8)));
  CHECK(talk.with.peer.is_at_end());
  CHECK(talk.with.why() == protocol::protocol_errc::bad_magic);
}

// --- BLOCK_STATUS with a payload

TEST_CASE("block_status_may_name_its_context_in_a_payload") {
  dialogue talk;
  write_file(talk.on.path, 0, pattern(64 * KiB));
  CHECK(talk.status_of(0, MiB).extents() == pieces{{64 * KiB, 0}, {MiB - 64 * KiB, hole}});
  CHECK(talk.status_of(100, MiB - 100, nbd::req_one).extents() == pieces{{64 * KiB - 100, 0}});
  CHECK(talk.status_of(MiB - 1, 1).extents() == pieces{{1, hole}});
  CHECK(talk.goes_on());
}

TEST_CASE("a_payload_with_a_context_that_was_not_selected_is_einval") {
  dialogue talk;
  for (const std::uint32_t context : {0U, 2U, 0xffffffffU}) {
    const auto reply = talk.status_of(0, MiB, 0, context);
    CHECK(reply.error() == nbd::einval);
    CHECK(reply.text() == "The payload names a metadata context that was not selected.");
  }
  CHECK(talk.goes_on());
}

TEST_CASE("a_payload_whose_range_is_past_the_end_is_einval") {
  dialogue talk;
  for (const std::uint64_t length : {MiB + 1, ~std::uint64_t{0}, std::uint64_t{0}}) {
    CAPTURE(length);
    CHECK(talk.status_of(0, length).error() == nbd::einval);
  }
  CHECK(talk.status_of(MiB + 1, 1).error() == nbd::einval);
  CHECK(talk.goes_on());
}

TEST_CASE("a_payload_of_another_size_is_drained_and_einval") {
  dialogue talk;
  for (const std::size_t length : {1U, 8U, 11U, 13U, 16U, 4096U, 300'000U}) {
    CAPTURE(length);
    const auto reply = talk.ask_with_payload(nbd::block_status, 0, pattern(length));
    CHECK(reply.error() == nbd::einval);
    CHECK(reply.text() == "The payload is not a length and the one context that is selected.");
    CHECK(talk.goes_on());
  }
  CHECK(talk.ask_with_payload(nbd::block_status, 0, {}).error() == nbd::einval);
}

TEST_CASE("a_status_payload_may_come_byte_by_byte") {
  dialogue talk;
  const byte_vector asked = joined(talk.client.header(nbd::block_status, 1, 0, 12, nbd::payload_len),
                                   packet().u64(MiB).u32(protocol::allocation_context_id));
  for (const std::byte& each : asked) {
    talk.with.peer.send(std::span(&each, 1));
    talk.on.settle();
  }
  CHECK(talk.client.receive(1, 0).extents() == pieces{{MiB, hole}});
  CHECK(talk.goes_on());
}

TEST_CASE("a_slot_that_had_a_status_payload_serves_anything_after_it") {
  dialogue talk;
  for (int i = 0; i < 3; ++i) {
    CHECK(talk.status_of(0, MiB).extents().size() >= 1);
    CHECK(talk.client.ask_to_write(MiB, pattern(100)).error() == nbd::enospc);
    CHECK(talk.client.ask_to_write(4096, pattern(100)).is_plain_success());
    CHECK(talk.ask_with_payload(nbd::block_status, 0, pattern(100)).error() == nbd::einval);
    CHECK(talk.goes_on());
  }
}

// --- Long lists

TEST_CASE("rule 24: a_long_list_is_cut_and_the_client_asks_on") {
  const std::uint64_t count = 1000;  // of data; each is followed by a hole
  dialogue talk({.size = count * 8192});
  for (std::uint64_t i = 0; i < count; ++i) write_file(talk.on.path, i * 8192, pattern(4096));
  const pieces all = talk.client.ask(nbd::block_status, 0, count * 8192).extents();
  CHECK(all.size() == 2 * count);
  const bool alternate = std::all_of(all.begin(), all.end(), [&](const piece& each) {
    return each.length == 4096 && (each.flags == 0) == ((&each - all.data()) % 2 == 0);
  });
  CHECK(alternate);
  // From the middle of one on.
  CHECK(talk.client.ask(nbd::block_status, 4000, 5000).extents() == pieces{{96, 0}, {4096, hole}, {808, 0}});
}

TEST_CASE("rule 18: extents_are_whole_blocks_for_a_client_that_asked_for_their_size") {
  dialogue talk({.size = MiB}, true);
  write_file(talk.on.path, 0, pattern(64 * KiB));
  CHECK(talk.client.ask(nbd::block_status, 0, MiB).extents() ==
        pieces{{64 * KiB, 0}, {MiB - 64 * KiB, hole}});
  CHECK(talk.client.ask(nbd::block_status, 7, 100).extents() == pieces{{100, 0}});
}
