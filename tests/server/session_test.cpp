#include "server/session.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "protocol/error.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

// What one request is answered; `payload` follows it.
std::uint32_t error_of(served_session& with, const byte_vector& asked) {
  with.peer.send(asked);
  return with.peer.receive_replies({{1, 0}}).at(1).error;
}

// Still there, and in step: a READ is answered with the file's bytes.
bool goes_on(served_session& with, served_loop& on) {
  with.peer.send(read_request(77, 0, 1000));
  return with.peer.receive(reply_size + 1000) == simple_reply(77, nbd::ok, read_file(on.path, 0, 1000));
}

}  // namespace

TEST_CASE("a_read_is_answered_with_the_files_bytes") {
  served_loop on;
  const byte_vector content = pattern(100'000);
  write_file(on.path, 4096, content);
  served_session with(on);
  with.peer.send(read_request(7, 4096, content.size()));
  CHECK((with.peer.receive(reply_size + content.size()) == simple_reply(7, nbd::ok, content)));
}

TEST_CASE("a_write_is_in_the_file_when_it_is_answered") {
  served_loop on;
  served_session with(on);
  const byte_vector content = pattern(8192);
  with.peer.send(write_request(9, 8192, content));
  CHECK(with.peer.receive(reply_size) == simple_reply(9));
  CHECK((read_file(on.path, 8192, content.size()) == content));
}

TEST_CASE("requests_that_came_with_the_handshake_are_served") {
  served_loop on;
  write_file(on.path, 0, pattern(512));
  served_session with(on, {.read_ahead = joined(read_request(1, 0, 512), read_request(2, 0, 10))});
  const auto replies = with.peer.receive_replies({{1, 512}, {2, 10}});
  CHECK(replies.at(1).data == pattern(512));
  CHECK(replies.at(2).data.size() == 10);
}

TEST_CASE("half_a_request_that_came_with_the_handshake_is_completed") {
  served_loop on;
  const byte_vector asked = read_request(1, 0, 10);
  served_session with(on, {.read_ahead = {asked.begin(), asked.begin() + 11}});
  with.peer.send(std::span(asked).subspan(11));
  CHECK(with.peer.receive(reply_size + 10) == simple_reply(1, nbd::ok, byte_vector(10)));
}

TEST_CASE("a_wrong_magic_ends_the_session") {
  served_loop on;
  served_session with(on);
  byte_vector asked = read_request(1, 0, 10);
  asked[0] = std::byte{0};
  with.peer.send(asked);
  CHECK(with.why() == protocol::protocol_errc::bad_magic);
}

TEST_CASE("rule 13: past_the_end_reads_and_trims_are_einval_and_writes_are_enospc", "[simple]") {
  const std::uint64_t size = 10'000;
  served_loop on({.size = size});
  served_session with(on);
  const std::uint64_t far = ~std::uint64_t{0};
  for (const auto& [offset, length] : {std::pair<std::uint64_t, std::uint64_t>{size, 1},
                                       {size - 1, 2},
                                       {0, size + 1},
                                       {size + 1, 0},
                                       {far, 1},
                                       {far, 0},
                                       {far - 511, 512}}) {
    CAPTURE(offset, length);
    CHECK(error_of(with, read_request(1, offset, length)) == nbd::einval);
    CHECK(error_of(with, request(nbd::trim, 1, offset, length)) == nbd::einval);
    CHECK(error_of(with, request(nbd::write_zeroes, 1, offset, length)) == nbd::enospc);
    CHECK(error_of(with, write_request(1, offset, byte_vector(length))) == nbd::enospc);
  }
  CHECK(goes_on(with, on));
}

TEST_CASE("rule 13: up_to_the_end_everything_is_served", "[simple]") {
  const std::uint64_t size = 10'000;
  served_loop on({.size = size});
  served_session with(on);
  const byte_vector content = pattern(size);
  CHECK(error_of(with, write_request(1, 0, content)) == nbd::ok);
  CHECK(read_file(on.path, 0, size) == content);
  with.peer.send(read_request(2, size - 1, 1));
  CHECK(with.peer.receive(reply_size + 1) == simple_reply(2, nbd::ok, {content.back()}));
  CHECK(error_of(with, request(nbd::write_zeroes, 1, size - 1, 1)) == nbd::ok);
  CHECK(error_of(with, request(nbd::trim, 1, size - 5000, 5000)) == nbd::ok);
  CHECK(read_file(on.path, size - 1, 1) == byte_vector(1));
}

TEST_CASE("rule 13: changes_to_a_read_only_export_are_eperm", "[simple]") {
  served_loop on({.read_only = true});
  served_session with(on);
  CHECK(error_of(with, write_request(1, 0, byte_vector(5000))) == nbd::eperm);
  CHECK(error_of(with, request(nbd::write_zeroes, 1, 0, 4096)) == nbd::eperm);
  CHECK(error_of(with, request(nbd::trim, 1, 0, 4096)) == nbd::eperm);
  CHECK(error_of(with, request(nbd::flush, 1)) == nbd::ok);
  CHECK(goes_on(with, on));
}

TEST_CASE("rule 14: a_refused_writes_payload_is_drained_and_the_connection_goes_on", "[simple]") {
  served_loop on({.size = 64 * MiB});
  served_session with(on);
  for (const std::size_t length :
       {std::size_t{1}, std::size_t{511}, 32 * KiB, 256 * KiB - 28, 256 * KiB, 256 * KiB + 1, 33 * MiB}) {
    CAPTURE(length);
    const std::uint64_t offset = length > 32 * MiB ? 0 : 64 * MiB;
    const std::uint32_t expected = length > 32 * MiB ? nbd::einval : nbd::enospc;
    CHECK(error_of(with, write_request(1, offset, pattern(length))) == expected);
    CHECK(goes_on(with, on));
  }
  CHECK(on.loop.buffers.buffers_out() == 0);
}

TEST_CASE("rule 14: draining_takes_no_memory_by_the_payloads_length", "[simple]") {
  served_loop on({.size = 128 * MiB});
  served_session with(on);
  with.peer.send(request(nbd::write, 1, 0, 64 * MiB));
  const byte_vector piece(MiB);
  for (int i = 0; i < 63; ++i) with.peer.send(piece);
  on.settle();
  CHECK(on.loop.buffers.buffers_out() == 0);
  CHECK(on.loop.buffers.pooled_bytes() == 0);
  CHECK(with.peer.receive_now(1).empty());
  with.peer.send(piece);
  CHECK(with.peer.receive(reply_size) == simple_reply(1, nbd::einval));
}

TEST_CASE("rule 14: past_64_MiB_of_payload_the_connection_is_dropped", "[simple]") {
  served_loop on;
  served_session with(on);
  with.peer.send(request(nbd::write, 1, 0, 64 * MiB + 1));
  CHECK(with.why() == protocol::protocol_errc::payload_too_long);
  CHECK(with.peer.is_at_end());
}

// The slot still pointed at the buffer of the request before, which the pool had given back to the system by
// then, or to another request.
TEST_CASE("rule 14: a_refused_payload_does_not_land_in_the_buffer_of_an_earlier_write", "[simple]") {
  served_loop on({.size = 16 * MiB});
  served_session with(on);
  CHECK(error_of(with, write_request(1, 0, pattern(3 * MiB))) == nbd::ok);
  CHECK(error_of(with, write_request(1, 16 * MiB, pattern(3 * MiB, 2))) == nbd::enospc);
  CHECK(goes_on(with, on));
}

TEST_CASE("rule 15: requests_of_no_length_are_answered", "[simple]") {
  served_loop on;
  served_session with(on);
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{513}, MiB}) {
    for (const std::uint16_t command : {nbd::read, nbd::write, nbd::trim, nbd::write_zeroes, nbd::flush}) {
      CAPTURE(offset, command);
      CHECK(error_of(with, request(command, 1, offset, 0)) == nbd::ok);
    }
  }
  CHECK(on.loop.buffers.pooled_bytes() == 0);
}

TEST_CASE("rule 16: flags_that_were_not_offered_or_are_not_the_commands_are_einval") {
  served_loop on;
  served_session with(on);
  for (const std::uint16_t flag : {nbd::df, nbd::req_one, nbd::payload_len, std::uint16_t{0x8000}}) {
    for (const std::uint16_t command : {nbd::read, nbd::trim, nbd::write_zeroes, nbd::flush}) {
      CAPTURE(flag, command);
      CHECK(error_of(with, request(command, 1, 0, 512, flag)) == nbd::einval);
    }
    CHECK(error_of(with, write_request(1, 0, byte_vector(512), flag)) == nbd::einval);
  }
  CHECK(error_of(with, request(nbd::read, 1, 0, 512, nbd::no_hole)) == nbd::einval);
  CHECK(error_of(with, request(nbd::trim, 1, 0, 512, nbd::fast_zero)) == nbd::einval);
  CHECK(goes_on(with, on));
}

TEST_CASE("rule 16: commands_that_are_not_served_are_einval") {
  served_loop on;
  served_session with(on);
  for (const std::uint16_t command :
       {nbd::cache, nbd::block_status, std::uint16_t{8}, std::uint16_t{9}, std::uint16_t{0xffff}}) {
    CAPTURE(command);
    CHECK(error_of(with, request(command, 1, 0, 512)) == nbd::einval);
  }
  CHECK(goes_on(with, on));
}

TEST_CASE("rule 16: fua_is_good_on_every_command") {
  served_loop on;
  served_session with(on);
  with.peer.send(request(nbd::read, 1, 0, 512, nbd::fua));
  CHECK(with.peer.receive(reply_size + 512) == simple_reply(1, nbd::ok, byte_vector(512)));
  for (const std::uint16_t command : {nbd::trim, nbd::write_zeroes, nbd::flush}) {
    CAPTURE(command);
    CHECK(error_of(with, request(command, 1, 0, 4096, nbd::fua)) == nbd::ok);
  }
  CHECK(error_of(with, write_request(1, 5, pattern(512), nbd::fua)) == nbd::ok);
  CHECK(read_file(on.path, 5, 512) == pattern(512));
}

TEST_CASE("rule 17: trims_and_zeroes_of_4_GiB_take_no_buffer") {
  served_loop on({.size = 5 * GiB});
  served_session with(on);
  const std::uint64_t longest = 0xffffffff;
  CHECK(error_of(with, request(nbd::trim, 1, 12345, longest)) == nbd::ok);
  const byte_vector content = pattern(8192);
  write_file(on.path, 4 * GiB - 4096, content);
  CHECK(error_of(with, request(nbd::write_zeroes, 1, 0, longest)) == nbd::ok);
  CHECK(read_file(on.path, 4 * GiB - 4096, 4095) == byte_vector(4095));
  CHECK(read_file(on.path, 4 * GiB - 1, 4097) == byte_vector(content.begin() + 4095, content.end()));
  CHECK(on.loop.buffers.buffers_out() == 0);
  CHECK(on.loop.buffers.pooled_bytes() == 0);
}

TEST_CASE("rule 18: any_offset_and_any_length_work") {
  const bool asked_for_block_sizes = GENERATE(false, true);
  const std::size_t size = 70'001;
  served_loop on({.size = size});
  byte_vector expected = pattern(size);
  write_file(on.path, 0, expected);
  served_session with(on, {.block_sizes_requested = asked_for_block_sizes});
  std::uint32_t seed = 2;
  for (const std::size_t offset : {0U, 1U, 511U, 512U, 513U, 4095U, 4096U, 65'535U}) {
    for (const std::size_t length : {1U, 2U, 511U, 512U, 4097U}) {
      CAPTURE(offset, length);
      const byte_vector content = pattern(length, ++seed);
      REQUIRE(error_of(with, write_request(1, offset, content)) == nbd::ok);
      std::copy(content.begin(), content.end(), expected.begin() + static_cast<std::ptrdiff_t>(offset));
      with.peer.send(read_request(2, offset, length));
      REQUIRE((with.peer.receive(reply_size + length) == simple_reply(2, nbd::ok, content)));
    }
  }
  CHECK((read_file(on.path, 0, size) == expected));
}

TEST_CASE("rule 19: cookies_may_repeat_and_come_back_as_they_were") {
  served_loop on;
  served_session with(on);
  const std::uint64_t odd = 0xfedcba9876543210;
  with.peer.send(joined(joined(read_request(odd, 0, 512), read_request(odd, 512, 512)), request(3, odd)));
  // All have the same cookie: only their number can be told.
  CHECK(with.peer.receive(3 * reply_size + 1024).size() == 3 * reply_size + 1024);
  on.settle();
  CHECK(with.peer.receive_now(1).empty());
  CHECK(goes_on(with, on));
}

TEST_CASE("rule 26: a_disk_error_is_eio_to_the_client_and_itself_in_the_log", "[simple]") {
  served_loop on;
  served_session with(on);
  REQUIRE(::truncate(on.path.c_str(), 4096) == 0);  // underneath us: the rest cannot be read any more
  CHECK(error_of(with, read_request(1, 65'536, 512)) == nbd::eio);
  CHECK(on.log.count_with("READ of 512 bytes at 65536 failed: Input/output error") == 1);
  CHECK(goes_on(with, on));
}

TEST_CASE("rule 26: a_file_that_may_not_grow_so_far_is_enospc", "[simple]") {
  served_loop on;
  served_session with(on);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit less{.rlim_cur = 65'536, .rlim_max = before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &less) == 0);
  const std::uint32_t result = error_of(with, write_request(1, 131'072, byte_vector(4096)));
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  (void)std::signal(SIGXFSZ, handler);
  CHECK(result == nbd::enospc);
  CHECK(on.log.count_with("File too large") == 1);
}

// Every command once, refused and served, cut in two at every byte and fed one byte at a time.
TEST_CASE("a_conversation_may_be_cut_at_every_byte") {
  const byte_vector content = pattern(70);
  const byte_vector said = packet()
                               .append(write_request(1, 100, content))
                               .append(write_request(2, MiB, pattern(33)))
                               .append(request(nbd::block_status, 3, 0, 512))
                               .append(read_request(4, 1000, 20))
                               .append(request(nbd::write_zeroes, 5, 8192, 512))
                               .append(request(nbd::trim, 6, MiB, 1))
                               .append(write_request(7, 0, {}))
                               .append(disconnect());
  served_loop on;
  const auto play = [&](std::size_t first, std::size_t piece) {
    served_session with(on);
    std::span<const std::byte> left(said);
    for (std::size_t length = first; !left.empty(); length = piece) {
      length = std::min(length, left.size());
      with.peer.send(left.first(length));
      left = left.subspan(length);
      on.settle();
    }
    using reply = client::reply;
    const auto replies = with.peer.receive_replies({{1, 0}, {2, 0}, {3, 0}, {4, 20}, {5, 0}, {6, 0}, {7, 0}});
    REQUIRE((replies == std::map<std::uint64_t, reply>{{1, {}},
                                                       {2, {nbd::enospc, {}}},
                                                       {3, {nbd::einval, {}}},
                                                       {4, {nbd::ok, byte_vector(20)}},
                                                       {5, {}},
                                                       {6, {nbd::einval, {}}},
                                                       {7, {}}}));
    REQUIRE(with.peer.is_at_end());
    REQUIRE(!with.why());
    REQUIRE(read_file(on.path, 100, content.size()) == content);
    write_file(on.path, 100, byte_vector(content.size()));
  };
  for (std::size_t cut = 1; cut < said.size(); ++cut) {
    CAPTURE(cut);
    play(cut, said.size());
  }
  play(1, 1);
  play(said.size(), said.size());
}
