// How a session ends: by the client's good-bye, its silence, its nonsense, or our own stop.
#include <boost/asio/error.hpp>

#include "protocol/error.hpp"
#include "server/session.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

const std::error_code end_of_stream = boost::asio::error::make_error_code(boost::asio::error::eof);

// Reads whose replies are far more than a socket holds.
byte_vector large_reads() {
  packet all;
  for (std::uint64_t cookie = 0; cookie < 8; ++cookie) all.append(read_request(cookie, 0, MiB));
  return all;
}

std::map<std::uint64_t, std::size_t> large_replies() {
  return {{0, MiB}, {1, MiB}, {2, MiB}, {3, MiB}, {4, MiB}, {5, MiB}, {6, MiB}, {7, MiB}};
}

std::chrono::milliseconds time_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
}

}  // namespace

TEST_CASE("rule 33: a_disconnect_ends_the_session_in_good_order", "[simple]") {
  served_loop on;
  served_session with(on);
  with.peer.send(disconnect());
  CHECK(!with.why());
  CHECK(with.peer.is_at_end());
}

TEST_CASE("rule 33: what_is_in_flight_at_a_disconnect_is_finished_and_answered", "[simple]") {
  served_loop on({.size = 16 * MiB});
  served_session with(on);
  const byte_vector content = pattern(100'000);
  with.peer.send(joined(joined(large_reads(), write_request(99, 5, content)), disconnect()));
  auto expected = large_replies();
  expected[99] = 0;
  const auto replies = with.peer.receive_replies(expected);
  for (const auto& [cookie, reply] : replies) CHECK(reply.error == nbd::ok);
  CHECK(with.peer.is_at_end());
  CHECK(!with.why());
  CHECK((read_file(on.path, 5, content.size()) == content));
}

TEST_CASE("rule 33: what_follows_a_disconnect_is_not_answered", "[simple]") {
  served_loop on;
  served_session with(on);
  with.peer.send(joined(joined(disconnect(), read_request(1, 0, 512)), write_request(2, 0, pattern(512))));
  CHECK(!with.why());
  CHECK(with.peer.is_at_end());
  CHECK(read_file(on.path, 0, 512) == byte_vector(512));
}

TEST_CASE("rule 33: a_client_that_closes_without_a_word_ends_the_session", "[simple]") {
  served_loop on;
  served_session with(on);
  with.peer.close();
  CHECK(with.why() == end_of_stream);
}

TEST_CASE("rule 33: a_client_that_sends_no_more_still_gets_its_replies", "[simple]") {
  served_loop on({.size = 16 * MiB});
  served_session with(on);
  with.peer.send(large_reads());
  with.peer.send_no_more();
  CHECK(with.peer.receive_replies(large_replies()).size() == 8);
  CHECK(with.peer.is_at_end());
  CHECK(with.why() == end_of_stream);
}

TEST_CASE("rule 33: a_client_that_closes_with_requests_in_flight_takes_nothing_down", "[simple]") {
  served_loop on({.size = 64 * MiB});
  SECTION("reads") {
    served_session with(on);
    with.peer.send(large_reads());
    SECTION("before they were seen") {}
    SECTION("when some are in the kernel") {
      on.loop.context.poll_one();
    }
    SECTION("when their replies wait for the socket") {
      on.settle();
    }
    with.peer.close();
    CHECK(with.why());
  }
  SECTION("writes") {
    served_session with(on);
    packet all;
    for (std::uint64_t i = 0; i < 6; ++i) all.append(write_request(i, i * 50'001, pattern(50'000)));
    with.peer.send(byte_vector(all));
    with.peer.close();
    CHECK(with.why());
    // They were complete, and they overlap blocks of each other: all are in the file.
    for (std::uint64_t i = 0; i < 6; ++i) CHECK((read_file(on.path, i * 50'001, 50'000) == pattern(50'000)));
  }
  on.settle();
  CHECK(on.loop.buffers.buffers_out() == 0);
  served_session next(on);
  next.peer.send(read_request(1, 0, 4096));
  CHECK(next.peer.receive(reply_size + 4096).size() == reply_size + 4096);
}

TEST_CASE("a_client_that_closes_in_the_middle_of_a_payload_changes_nothing") {
  const std::size_t sent = GENERATE(0U, 1U, 20'000U, 99'999U);
  served_loop on;
  served_session with(on);
  with.peer.send(std::span<const std::byte>(write_request(1, 0, pattern(100'000))).first(28 + sent));
  on.settle();
  with.peer.close();
  CHECK(with.why() == end_of_stream);
  CHECK(on.loop.buffers.buffers_out() == 0);
  CHECK((read_file(on.path, 0, 100'000) == byte_vector(100'000)));
}

TEST_CASE("nonsense_ends_the_session_after_what_is_in_flight_was_answered") {
  served_loop on({.size = 16 * MiB});
  served_session with(on);
  with.peer.send(joined(large_reads(), byte_vector(28, std::byte{0x5a})));
  CHECK(with.peer.receive_replies(large_replies()).size() == 8);
  CHECK(with.why() == protocol::protocol_errc::bad_magic);
}

TEST_CASE("a_client_that_says_goodbye_and_never_reads_is_cut_off_after_the_linger_time") {
  served_loop on({.size = 16 * MiB});
  served_session with(on, {.limits = {.linger = std::chrono::seconds(1)}});
  with.peer.send(joined(large_reads(), disconnect()));
  const auto begin = std::chrono::steady_clock::now();
  CHECK(!with.why());
  CHECK(time_since(begin) >= std::chrono::milliseconds(900));
  CHECK(time_since(begin) < std::chrono::seconds(5));
  CHECK(on.loop.buffers.buffers_out() == 0);
}

TEST_CASE("a_client_that_goes_while_the_session_lingers_ends_it_at_once") {
  served_loop on({.size = 16 * MiB});
  served_session with(on, {.limits = {.linger = std::chrono::seconds(60)}});
  with.peer.send(joined(large_reads(), disconnect()));
  on.settle();
  CHECK(!with.is_over());
  with.peer.close();
  CHECK(!with.why());
}

TEST_CASE("rule 35: a_session_that_is_idle_ends_when_it_is_stopped", "[simple]") {
  served_loop on;
  served_session with(on);
  on.settle();
  with.session().stop();
  CHECK(with.peer.is_at_end());
  (void)with.why();
}

TEST_CASE("rule 35: a_session_that_stops_in_the_middle_of_a_header_ends", "[simple]") {
  served_loop on;
  served_session with(on);
  with.peer.send(std::span<const std::byte>(read_request(1, 0, 512)).first(20));
  on.settle();
  with.session().stop();
  CHECK(with.peer.is_at_end());
  (void)with.why();
}

TEST_CASE("rule 35: what_is_in_flight_finishes_and_what_comes_is_refused_with_eshutdown", "[simple]") {
  served_loop on({.size = 16 * MiB});
  served_session with(on);
  with.peer.send(large_reads());
  on.settle();  // their replies wait for the client
  with.session().stop();
  with.peer.send(joined(write_request(50, 0, pattern(9000)), request(nbd::flush, 51)));
  auto expected = large_replies();
  expected[50] = expected[51] = 0;
  const auto replies = with.peer.receive_replies(expected);
  for (std::uint64_t cookie = 0; cookie < 8; ++cookie) CHECK(replies.at(cookie).error == nbd::ok);
  CHECK(replies.at(50).error == nbd::eshutdown);
  CHECK(replies.at(51).error == nbd::eshutdown);
  CHECK(with.peer.is_at_end());
  with.peer.close();
  (void)with.why();
  CHECK((read_file(on.path, 0, 9000) == byte_vector(9000)));
}

TEST_CASE("rule 35: a_write_whose_payload_is_on_its_way_is_outstanding", "[simple]") {
  served_loop on;
  served_session with(on);
  const byte_vector asked = write_request(1, 0, pattern(9000));
  with.peer.send(std::span(asked).first(5000));
  on.settle();
  with.session().stop();
  with.peer.send(std::span(asked).subspan(5000));
  CHECK(with.peer.receive(reply_size) == simple_reply(1));
  CHECK(with.peer.is_at_end());
  with.peer.close();
  (void)with.why();
  CHECK((read_file(on.path, 0, 9000) == pattern(9000)));
}

// What was sent to a Unix socket lies with the peer already. On TCP it may still be on its way, which the
// test a_reply_on_its_way_arrives_whole_though_its_client_goes_on_asking is about.
TEST_CASE("rule 35: on_a_unix_socket_replies_outlive_the_session_that_sent_them", "[simple]") {
  served_loop on({.size = 16 * MiB});
  served_session with(on);
  with.peer.send(large_reads());
  on.settle();
  with.session().stop();
  CHECK(with.peer.receive_replies(large_replies()).size() == 8);
  CHECK(with.peer.is_at_end());
  (void)with.why();
}

TEST_CASE("rule 35: more_refusals_than_there_are_slots_do_not_keep_a_stopping_session", "[simple]") {
  served_loop on({.size = 16 * MiB});
  served_session with(on, {.limits = {.requests_max = 8}});
  with.peer.send(large_reads());
  on.settle();
  packet more;
  for (std::uint64_t cookie = 100; cookie < 200; ++cookie) more.append(request(nbd::flush, cookie));
  with.peer.send(byte_vector(more));
  on.settle();
  with.session().stop();
  CHECK(with.peer.receive(8 * (reply_size + MiB)).size() == 8 * (reply_size + MiB));
  with.peer.close();
  (void)with.why();
}

TEST_CASE("rule 36: a_new_sessions_write_follows_a_dead_sessions_write") {
  served_loop on({.size = 16 * MiB});
  const std::size_t length = 8 * MiB;
  for (std::uint32_t round = 0; round < 5; ++round) {
    served_session dead(on);
    dead.peer.send(write_request(1, 0, pattern(length, 2 * round)));
    dead.peer.close();
    served_session next(on);
    const byte_vector last = pattern(4096, 2 * round + 1);
    // The dead one's payload is complete but nothing says that its write is done.
    (void)on.run_until([&] { return on.loop.aio.outstanding() != 0; });
    next.peer.send(write_request(1, 4096, last));
    REQUIRE(next.peer.receive(reply_size) == simple_reply(1));
    (void)dead.why();
    REQUIRE((read_file(on.path, 4096, last.size()) == last));
  }
}
