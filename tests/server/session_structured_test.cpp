// Sessions with structured replies and with extended headers: what is the same in both.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "tests/server/chunks.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

struct dialogue {
  explicit dialogue(reply_mode mode, const served_file& file = {}, session_settings settings = {})
      : on(file), with(on, settled(mode, std::move(settings))), client(with, mode) {}

  static session_settings settled(reply_mode mode, session_settings settings) {
    settings.replies = mode;
    settings.allocation_selected = true;
    return settings;
  }
  // Still there, and in step.
  bool goes_on() { return client.read(0, 1000) == read_file(on.path, 0, 1000); }
  // Everything was answered with what was received so far.
  bool says_nothing_more() {
    on.settle();
    return with.peer.receive_now(1).empty();
  }

  served_loop on;
  served_session with;
  chunk_client client;
};

reply_mode each_mode() {
  return GENERATE(reply_mode::structured, reply_mode::extended);
}

}  // namespace

// --- READ

TEST_CASE("a_structured_read_of_data_is_one_chunk") {
  dialogue talk(each_mode());
  const byte_vector content = pattern(100'000);
  write_file(talk.on.path, 777, content);
  for (const auto& [offset, length] :
       {std::pair{777U, 100'000U}, {777U, 1U}, {1000U, 512U}, {778U, 65'536U}}) {
    const auto reply = talk.client.ask(nbd::read, offset, length);
    CHECK(reply.chunks.size() == 1);
    const auto [bytes, parts] = reply.data(offset, length);
    const auto begin = content.begin() + (offset - 777);
    CHECK((bytes == byte_vector(begin, begin + length)));
  }
  CHECK(talk.says_nothing_more());
}

TEST_CASE("a_structured_read_of_a_hole_is_one_chunk_without_data") {
  dialogue talk(each_mode());
  const auto reply = talk.client.ask(nbd::read, 0, MiB);
  CHECK(reply.data(0, MiB).second == pieces{{MiB, nbd::is_hole}});
  CHECK(talk.client.ask(nbd::read, 12'345, 70'000).data(12'345, 70'000).second ==
        pieces{{70'000, nbd::is_hole}});
  CHECK(talk.says_nothing_more());
}

TEST_CASE("a_structured_read_of_data_and_holes_is_a_chunk_for_each") {
  dialogue talk(each_mode(), {.size = 4 * MiB + 100});
  const byte_vector content = pattern(64 * KiB);
  write_file(talk.on.path, 256 * KiB, content);
  write_file(talk.on.path, MiB, content);
  const auto reply = talk.client.ask(nbd::read, 100, 2 * MiB);
  const auto [bytes, parts] = reply.data(100, 2 * MiB);
  CHECK(parts == pieces{{256 * KiB - 100, nbd::is_hole},
                        {64 * KiB, 0},
                        {MiB - 320 * KiB, nbd::is_hole},
                        {64 * KiB, 0},
                        {MiB - 64 * KiB + 100, nbd::is_hole}});
  CHECK((bytes == read_file(talk.on.path, 100, 2 * MiB)));
  // Short ones, and those at the odd end, are read as they are.
  CHECK(talk.client.ask(nbd::read, 0, 65'535).data(0, 65'535).second == pieces{{65'535, 0}});
  CHECK(talk.client.read(4 * MiB - 100'000, 100'100) == byte_vector(100'100));
  CHECK(talk.says_nothing_more());
}

TEST_CASE("many_sparse_reads_at_once_are_each_answered_whole") {
  dialogue talk(each_mode(), {.size = 8 * MiB});
  byte_vector expected(8 * MiB);
  for (std::size_t at = 0; at < 8 * MiB; at += 96 * KiB) {
    const byte_vector content = pattern(32 * KiB, static_cast<std::uint32_t>(at));
    write_file(talk.on.path, at, content);
    std::copy(content.begin(), content.end(), expected.begin() + static_cast<std::ptrdiff_t>(at));
  }
  packet all;
  for (std::uint64_t i = 0; i < 7; ++i) all.append(talk.client.header(nbd::read, i, i * MiB + i, MiB));
  talk.client.send(all);
  // In any order, but each in one piece: the cookie of the first chunk says which it is.
  std::vector<bool> seen(7);
  for (int n = 0; n < 7; ++n) {
    const std::size_t head_size = talk.client.mode() == reply_mode::extended ? 32 : 20;
    byte_vector head(head_size);
    REQUIRE(talk.on.run_until([&] {
      return ::recv(talk.with.peer.fd(), head.data(), head_size, MSG_PEEK | MSG_DONTWAIT) ==
             static_cast<ssize_t>(head_size);
    }));
    const std::uint64_t i = number_at(head, 8, 8);
    REQUIRE(i < 7);
    REQUIRE_FALSE(seen[i]);
    seen[i] = true;
    const std::uint64_t offset = i * MiB + i;
    const auto begin = expected.begin() + static_cast<std::ptrdiff_t>(offset);
    REQUIRE((talk.client.receive(i, offset).data(offset, MiB).first ==
             byte_vector(begin, begin + static_cast<std::ptrdiff_t>(MiB))));
  }
  CHECK(talk.says_nothing_more());
}

TEST_CASE("rule 23: df_is_one_chunk_up_to_the_largest_payload", "[structured][extended]") {
  dialogue talk(each_mode(), {.size = 64 * MiB});
  write_file(talk.on.path, 100'000, pattern(100'000));
  const auto reply = talk.client.ask(nbd::read, 0, 32 * MiB, nbd::df);
  CHECK(reply.chunks.size() == 1);
  const auto [bytes, parts] = reply.data(0, 32 * MiB);
  CHECK(parts == pieces{{32 * MiB, 0}});
  CHECK((bytes == read_file(talk.on.path, 0, 32 * MiB)));
  CHECK(talk.client.ask(nbd::read, 0, 32 * MiB + 1, nbd::df).error() == nbd::eoverflow);
  CHECK(talk.client.ask(nbd::read, 0, 32 * MiB + 1).error() == nbd::eoverflow);
  CHECK(talk.goes_on());
}

TEST_CASE("rule 20: a_failed_read_is_an_error_chunk") {
  dialogue talk(each_mode());
  const auto past_end = talk.client.ask(nbd::read, MiB, 1);
  CHECK(past_end.chunks.size() == 1);
  CHECK(past_end.error() == nbd::einval);
  CHECK(past_end.text() == "The read reaches past the end of the export.");

  REQUIRE(::truncate(talk.on.path.c_str(), 4096) == 0);  // underneath us: the rest cannot be read any more
  const auto failed = talk.client.ask(nbd::read, 65'536, 512);
  CHECK(failed.chunks.size() == 1);
  CHECK(failed.error() == nbd::eio);
  CHECK(failed.text() == "The server's storage failed; its log says more.");
  CHECK(talk.on.log.count_with("READ of 512 bytes at 65536 failed: Input/output error") == 1);
  CHECK(talk.goes_on());
}

// --- Changes

TEST_CASE("structured_writes_trims_zeroes_and_flushes_are_answered_by_one_empty_chunk") {
  dialogue talk(each_mode());
  const byte_vector content = pattern(300'000);
  CHECK(talk.client.ask_to_write(5, content).is_plain_success());
  CHECK((read_file(talk.on.path, 5, content.size()) == content));
  CHECK(talk.client.ask_to_write(5, content, nbd::fua).is_plain_success());
  CHECK(talk.client.ask(nbd::flush, 0, 0).is_plain_success());
  CHECK(talk.client.ask(nbd::write_zeroes, 100, 200'000, nbd::no_hole).is_plain_success());
  CHECK((read_file(talk.on.path, 100, 200'000) == byte_vector(200'000)));
  CHECK(talk.client.ask(nbd::write_zeroes, 0, MiB, nbd::fast_zero).is_plain_success());
  CHECK((read_file(talk.on.path, 0, MiB) == byte_vector(MiB)));
  CHECK(talk.client.ask(nbd::trim, 0, MiB, nbd::fua).is_plain_success());
  CHECK(talk.says_nothing_more());
}

TEST_CASE("rule 13: structured_requests_past_the_end_are_refused_with_a_sentence", "[structured][extended]") {
  dialogue talk(each_mode());
  CHECK(talk.client.ask_to_write(MiB - 1, pattern(2)).error() == nbd::enospc);
  CHECK(talk.client.ask(nbd::write_zeroes, MiB, 1).error() == nbd::enospc);
  CHECK(talk.client.ask(nbd::trim, MiB, 1).error() == nbd::einval);
  CHECK(talk.client.ask(nbd::block_status, MiB, 1).error() == nbd::einval);
  CHECK(talk.client.ask(99, 0, 1).error() == nbd::einval);
  CHECK_FALSE(talk.client.ask(nbd::read, 0, 1, nbd::req_one).text().empty());
  CHECK(talk.goes_on());
}

TEST_CASE("rule 13: structured_changes_of_a_read_only_export_are_eperm", "[structured][extended]") {
  dialogue talk(each_mode(), {.read_only = true});
  CHECK(talk.client.ask_to_write(0, pattern(100)).error() == nbd::eperm);
  const auto trim = talk.client.ask(nbd::trim, 0, 512);
  CHECK(trim.error() == nbd::eperm);
  CHECK(trim.text() == "The export is read-only.");
  CHECK(talk.client.ask(nbd::write_zeroes, 0, 512).error() == nbd::eperm);
  CHECK(talk.client.ask(nbd::flush, 0, 0).is_plain_success());
  CHECK(talk.goes_on());
}

TEST_CASE("rule 14: the_payload_of_a_refused_structured_write_is_drained", "[structured][extended]") {
  dialogue talk(each_mode());
  for (const std::size_t length : {1U, 4096U, 300'000U, 2U << 20}) {
    CAPTURE(length);
    CHECK(talk.client.ask_to_write(MiB - length / 2, pattern(length)).error() == nbd::enospc);
    CHECK(talk.goes_on());
  }
  // With the longest, there is no room for the next request's bytes to be taken for a payload's.
  CHECK(talk.client.ask_to_write(0, byte_vector(32 * MiB)).error() == nbd::enospc);
  CHECK(talk.goes_on());
  CHECK(talk.on.loop.buffers.buffers_out() == 0);
}

TEST_CASE("rule 15: structured_requests_of_no_length_are_answered", "[structured][extended]") {
  dialogue talk(each_mode());
  for (const std::uint16_t command : {nbd::read, nbd::trim, nbd::write_zeroes}) {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{777}, MiB}) {
      CAPTURE(command, offset);
      CHECK(talk.client.ask(command, offset, 0).is_plain_success());
    }
  }
  CHECK(talk.client.ask(nbd::read, 0, 0, nbd::df).is_plain_success());
  CHECK(talk.client.ask_to_write(5, {}).is_plain_success());
  CHECK(talk.client.ask(nbd::block_status, 0, 0).error() == nbd::einval);  // no answer could say nothing
  CHECK(talk.client.ask(nbd::read, MiB + 1, 0).error() == nbd::einval);
  CHECK(talk.goes_on());
}

TEST_CASE("rule 26: a_structured_write_without_space_is_enospc", "[structured][extended]") {
  dialogue talk(each_mode());
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit less{.rlim_cur = 65'536, .rlim_max = before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &less) == 0);
  const auto reply = talk.client.ask_to_write(131'072, byte_vector(4096));
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  (void)std::signal(SIGXFSZ, handler);
  CHECK(reply.error() == nbd::enospc);
  CHECK(reply.text() == "There is no space left for the export.");
}

// --- BLOCK_STATUS

TEST_CASE("block_status_tells_data_from_holes_and_unwritten_space") {
  dialogue talk(each_mode());
  CHECK(talk.client.ask_to_write(256 * KiB, pattern(64 * KiB)).is_plain_success());
  CHECK(talk.client.ask(nbd::write_zeroes, 512 * KiB, 64 * KiB, nbd::no_hole).is_plain_success());
  const std::uint32_t hole = nbd::is_hole | nbd::is_zero;
  CHECK(
      talk.client.ask(nbd::block_status, 0, MiB).extents() ==
      pieces{
          {256 * KiB, hole}, {64 * KiB, 0}, {192 * KiB, hole}, {64 * KiB, nbd::is_zero}, {448 * KiB, hole}});
  CHECK(talk.client.ask(nbd::block_status, 256 * KiB - 1, 2).extents() == pieces{{1, hole}, {1, 0}});
  CHECK(talk.client.ask(nbd::trim, 256 * KiB, 64 * KiB).is_plain_success());
  CHECK(talk.client.ask(nbd::block_status, 0, 512 * KiB).extents() == pieces{{512 * KiB, hole}});
}

TEST_CASE("rule 24: req_one_gives_one_extent_no_longer_than_the_request", "[structured][extended]") {
  dialogue talk(each_mode());
  write_file(talk.on.path, 0, pattern(64 * KiB));
  const std::uint32_t hole = nbd::is_hole | nbd::is_zero;
  CHECK(talk.client.ask(nbd::block_status, 0, MiB, nbd::req_one).extents() == pieces{{64 * KiB, 0}});
  CHECK(talk.client.ask(nbd::block_status, 100, 1000, nbd::req_one).extents() == pieces{{1000, 0}});
  CHECK(talk.client.ask(nbd::block_status, 64 * KiB, 10, nbd::req_one).extents() == pieces{{10, hole}});
  CHECK(talk.client.ask(nbd::block_status, MiB - 1, 1, nbd::req_one).extents() == pieces{{1, hole}});
}

TEST_CASE("block_status_needs_a_context_that_was_selected") {
  served_loop on;
  const reply_mode mode = each_mode();
  served_session with(on, {.replies = mode});
  chunk_client client(with, mode);
  const auto reply = client.ask(nbd::block_status, 0, MiB);
  CHECK(reply.error() == nbd::einval);
  CHECK(reply.text() == "No metadata context was selected.");
}

TEST_CASE("rule 31: structured_reads_agree_with_block_status_after_every_change") {
  dialogue talk(each_mode());
  std::uint32_t seed = 5;
  const auto random = [&](std::uint64_t limit) {
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % limit;
  };
  byte_vector expected(MiB);
  for (int round = 0; round < 25; ++round) {
    const std::uint64_t offset = random(MiB), length = 1 + random(std::min(MiB - offset, 300 * KiB));
    CAPTURE(round, offset, length);
    const auto place = expected.begin() + static_cast<std::ptrdiff_t>(offset);
    if (random(2) == 0) {
      const byte_vector content = pattern(length, seed);
      REQUIRE(talk.client.ask_to_write(offset, content).is_plain_success());
      std::copy(content.begin(), content.end(), place);
    } else {
      const std::uint16_t flags = random(2) == 0 ? nbd::no_hole : std::uint16_t{0};
      REQUIRE(talk.client.ask(nbd::write_zeroes, offset, length, flags).is_plain_success());
      std::fill_n(place, length, std::byte{0});
    }
    std::uint64_t at = 0;
    for (const piece& extent : talk.client.ask(nbd::block_status, 0, MiB).extents()) {
      const auto begin = expected.begin() + static_cast<std::ptrdiff_t>(at);
      if (extent.flags != 0) {
        REQUIRE(std::all_of(begin, begin + static_cast<std::ptrdiff_t>(extent.length),
                            [](std::byte each) { return each == std::byte{0}; }));
      }
      at += extent.length;
    }
    REQUIRE(at == MiB);
    REQUIRE((talk.client.read(0, MiB) == expected));
  }
}

// What a long list of extents may take is half a mebibyte of the budget.
TEST_CASE("rule 34: answers_to_block_status_are_charged_to_the_budget", "[structured][extended]") {
  dialogue talk(each_mode(), {}, {.limits = {.in_flight_bytes_max = 2 * MiB}});
  packet all;
  for (std::uint64_t i = 0; i < 100; ++i) all.append(talk.client.header(nbd::block_status, 7, 0, MiB));
  talk.client.send(all);
  // Nothing of it is taken until the loop runs; then no more than the budget at a time.
  std::size_t most = 0;
  std::size_t left = 100;
  while (left > 0) {
    most = std::max(most, talk.on.loop.aio.outstanding());
    REQUIRE(talk.client.receive(7, 0).extents() == pieces{{MiB, nbd::is_hole | nbd::is_zero}});
    --left;
  }
  CHECK(most <= 4);
  // One alone may pass it.
  dialogue poor(talk.client.mode(), {}, {.limits = {.in_flight_bytes_max = 4096}});
  CHECK(poor.client.ask(nbd::block_status, 0, MiB).extents().size() == 1);
}

TEST_CASE("rule 34: a_client_that_does_not_fetch_its_extents_is_not_read_from", "[structured][extended]") {
  dialogue talk(each_mode(), {}, {.limits = {.in_flight_bytes_max = 2 * MiB}, .send_buffer = 4096});
  const byte_vector one = talk.client.header(nbd::block_status, 7, 0, MiB);
  std::size_t sent = 0;
  for (int quiet = 0; quiet < 50;) {
    const std::size_t now = talk.with.peer.send_now(one);
    sent += now;
    quiet = now == 0 ? quiet + 1 : 0;
    if (now != 0 && now != one.size()) break;  // the stream is full
    talk.on.settle();
    REQUIRE(sent < 64 * MiB);
  }
  CHECK(sent < 8 * MiB);
}

// --- The stream

TEST_CASE("rule 21: a_structured_conversation_may_be_cut_at_every_byte") {
  const reply_mode mode = each_mode();
  dialogue talk(mode);
  const byte_vector content = pattern(70);
  const auto said = packet()
                        .append(talk.client.write(1, 100, content))
                        .append(talk.client.write(1, MiB, pattern(33)))
                        .append(talk.client.header(nbd::block_status, 1, 0, 512))
                        .append(talk.client.header(nbd::write_zeroes, 1, 100, 8192))
                        .append(talk.client.write(1, 0, {}));
  const byte_vector all = said;
  for (std::size_t cut = 1; cut < all.size(); cut += 3) {
    CAPTURE(cut);
    talk.with.peer.send(std::span(all).first(cut));
    talk.on.settle();
    talk.with.peer.send(std::span(all).subspan(cut));
    // All have one cookie, so that they may come in any order; only the errors are counted.
    int failed = 0, answered = 0;
    const std::size_t head_size = mode == reply_mode::extended ? 32 : 20;
    while (answered < 5) {
      byte_vector head(head_size);
      REQUIRE(talk.on.run_until([&] {
        return ::recv(talk.with.peer.fd(), head.data(), head_size, MSG_PEEK | MSG_DONTWAIT) ==
               static_cast<ssize_t>(head_size);
      }));
      const std::uint64_t offset = mode == reply_mode::extended ? number_at(head, 16, 8) : 0;
      failed += talk.client.receive(1, offset).error() != nbd::ok;
      ++answered;
    }
    REQUIRE(failed == 1);
    REQUIRE(talk.says_nothing_more());
  }
}

TEST_CASE("rule 33: a_disc_ends_a_structured_session", "[structured][extended]") {
  dialogue talk(each_mode());
  talk.client.send(talk.client.header(nbd::disc, 1, 0, 0));
  CHECK(talk.with.peer.is_at_end());
  CHECK_FALSE(talk.with.why());
}

TEST_CASE("rule 35: a_structured_request_during_a_stop_is_eshutdown", "[structured][extended]") {
  dialogue talk(each_mode());
  // Of a write only the beginning is there: it keeps the session from ending at once.
  const byte_vector write = talk.client.write(1, 0, pattern(1000));
  talk.with.peer.send(std::span(write).first(500));
  talk.on.settle();
  talk.with.session().stop();
  talk.with.peer.send(
      joined(byte_vector(write.begin() + 500, write.end()), talk.client.header(nbd::read, 2, 0, 10)));
  CHECK(talk.client.receive(2, 0).error() == nbd::eshutdown);
  CHECK(talk.client.receive(1, 0).is_plain_success());
}
