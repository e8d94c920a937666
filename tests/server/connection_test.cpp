#include "server/connection.hpp"

#include <chrono>

#include "server/receive_buffer.hpp"
#include "server/request_slot.hpp"
#include "tests/protocol/conversation.hpp"
#include "tests/server/failing_memory.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using std::chrono::milliseconds, std::chrono::seconds;

namespace {

// A connection and its client.
class served_connection {
 public:
  explicit served_connection(served_loop& on, const server::connection_limits& limits = {})
      : served_connection(on, limits, on.connect()) {}
  served_connection(const served_connection&) = delete;
  served_connection& operator=(const served_connection&) = delete;
  ~served_connection() {
    peer.close();
    if (!ends_within(seconds(20))) std::abort();  // it refers to this object
  }

  client peer;
  // While it lives; it deletes itself.
  server::connection& connection() { return *alive_.lock(); }
  bool has_ended() const { return has_ended_; }
  bool ends_within(milliseconds at_most) {
    return on_.run_until([this] { return has_ended_; }, at_most);
  }

  // Client flags and GO; true when the server agrees.
  bool enters() {
    peer.send(joined(flags_request(3), go_request("")));
    const byte_vector expected = joined(server_greeting(), joined(described(7, on_.info()), ack(7)));
    return peer.receive(expected.size()) == expected;
  }
  bool is_served() {
    peer.send(read_request(5, 0, 512));
    return peer.receive(reply_size + 512) == simple_reply(5, nbd::ok, byte_vector(512));
  }

 private:
  served_connection(served_loop& on, const server::connection_limits& limits, stream_ends ends)
      : peer(std::move(ends.peer)), on_(on) {
    const auto made = std::make_shared<server::connection>(std::move(ends.served), on.loop, on.exports,
                                                           limits, [this] { has_ended_ = true; });
    alive_ = made;
    made->start();
  }

  served_loop& on_;
  std::weak_ptr<server::connection> alive_;
  bool has_ended_ = false;
};

server::connection_limits impatient() {
  return {.handshake_timeout = seconds(1), .session = {}};
}

milliseconds since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
}

}  // namespace

TEST_CASE("a_connection_shakes_hands_serves_and_ends") {
  served_loop on;
  served_connection with(on);
  REQUIRE(with.enters());
  CHECK(with.is_served());
  CHECK(on.loop.connections.size() == 1);
  with.peer.send(disconnect());
  CHECK(with.peer.is_at_end());
  CHECK(with.ends_within(seconds(5)));
  CHECK(on.loop.connections.empty());
  CHECK(on.log.count_with("disconnected") == 1);
}

TEST_CASE("export_name_leads_to_transmission_too") {
  served_loop on;
  served_connection with(on);
  with.peer.send(joined(flags_request(3), joined(export_name_request(""), read_request(5, 0, 10))));
  const byte_vector answer = packet().u64(on.info().size).u16(on.info().flags);
  const byte_vector expected =
      joined(joined(server_greeting(), answer), simple_reply(5, nbd::ok, byte_vector(10)));
  CHECK(with.peer.receive(expected.size()) == expected);
}

TEST_CASE("requests_right_behind_go_are_served") {
  served_loop on;
  served_connection with(on);
  const byte_vector content = pattern(20'000);  // more than the handshake reads at once
  with.peer.send(packet()
                     .append(flags_request(3))
                     .append(go_request(""))
                     .append(write_request(1, 1000, content))
                     .append(read_request(2, 100'000, 10))
                     .append(disconnect())
                     .
                     operator byte_vector());
  const byte_vector expected = joined(server_greeting(), joined(described(7, on.info()), ack(7)));
  CHECK(with.peer.receive(expected.size()) == expected);
  const auto replies = with.peer.receive_replies({{1, 0}, {2, 10}});
  CHECK(replies.at(1).error == nbd::ok);
  CHECK(replies.at(2).error == nbd::ok);
  CHECK(with.peer.is_at_end());
  CHECK((read_file(on.path, 1000, content.size()) == content));
}

TEST_CASE("a_handshake_that_arrives_byte_by_byte_is_understood") {
  served_loop on;
  served_connection with(on);
  const byte_vector all = joined(flags_request(3), joined(go_request(""), read_request(5, 0, 10)));
  for (const std::byte& each : all) {
    with.peer.send({&each, 1});
    on.settle();
  }
  const byte_vector expected = joined(joined(server_greeting(), joined(described(7, on.info()), ack(7))),
                                      simple_reply(5, nbd::ok, byte_vector(10)));
  CHECK(with.peer.receive(expected.size()) == expected);
}

TEST_CASE("rule 2: a_silent_client_is_closed_at_the_handshakes_deadline") {
  served_loop on;
  const auto begin = std::chrono::steady_clock::now();
  served_connection with(on, impatient());
  CHECK(with.peer.receive(18) == server_greeting());
  CHECK(with.peer.is_at_end());
  CHECK(since(begin) >= milliseconds(900));
  CHECK(since(begin) < seconds(5));
  CHECK(with.ends_within(seconds(5)));
  CHECK(on.log.count_with("no handshake within 1 s") == 1);
}

TEST_CASE("rule 2: a_client_that_only_ever_asks_does_not_move_the_deadline") {
  served_loop on;
  const auto begin = std::chrono::steady_clock::now();
  served_connection with(on, impatient());
  with.peer.send(flags_request(3));
  while (!with.has_ended() && since(begin) < seconds(5)) {
    if (since(begin) < milliseconds(800)) with.peer.send(option_request(3));
    (void)with.ends_within(milliseconds(100));
  }
  CHECK(with.has_ended());
  CHECK(since(begin) >= milliseconds(900));
  CHECK(since(begin) < seconds(3));
}

TEST_CASE("rule 2: a_client_that_does_not_read_its_answers_is_closed_at_the_deadline") {
  served_loop on({.description = std::string(4096, 'd')});
  served_connection with(on, impatient());
  packet all;
  all.append(flags_request(3));
  for (int i = 0; i < 500; ++i) all.append(option_request(3));
  with.peer.send(byte_vector(all));
  CHECK(with.ends_within(seconds(5)));
}

TEST_CASE("rule 2: the_deadline_is_the_handshakes_and_not_the_connections") {
  served_loop on;
  served_connection with(on, impatient());
  REQUIRE(with.enters());
  CHECK_FALSE(with.ends_within(milliseconds(1300)));
  CHECK(with.is_served());
}

TEST_CASE("a_client_that_leaves_during_the_handshake_is_normal") {
  served_loop on;
  const byte_vector all = joined(flags_request(3), go_request(""));
  for (std::size_t sent = 0; sent <= all.size(); ++sent) {
    CAPTURE(sent);
    served_connection with(on);
    with.peer.send(std::span(all).first(sent));
    if (sent % 2 == 0) on.settle();
    with.peer.close();
    REQUIRE(with.ends_within(seconds(5)));
  }
  CHECK(on.loop.connections.empty());
  CHECK(on.log.count_with("error") == 0);
}

TEST_CASE("rule 8: an_abort_is_acknowledged_and_ends_the_connection") {
  served_loop on;
  served_connection with(on);
  with.peer.send(joined(flags_request(3), option_request(2)));
  const byte_vector expected = joined(server_greeting(), ack(2));
  CHECK(with.peer.receive(expected.size()) == expected);
  CHECK(with.peer.is_at_end());
  CHECK(with.ends_within(seconds(5)));
}

TEST_CASE("nonsense_in_the_handshake_ends_the_connection") {
  served_loop on;
  served_connection with(on);
  with.peer.send(byte_vector(100, std::byte{'x'}));
  CHECK(with.ends_within(seconds(5)));
  CHECK(on.log.count_with("warning") == 1);
}

TEST_CASE("rule 35: in_the_handshake_options_are_answered_err_shutdown") {
  served_loop on;
  served_connection with(on);
  with.peer.send(flags_request(3));
  on.settle();
  with.connection().stop();
  with.peer.send(go_request(""));
  CHECK(with.peer.receive(18) == server_greeting());
  const byte_vector expected = reply(7, err_shutdown);
  const byte_vector answer = with.peer.receive_some(4096);
  // The length is that of the sentence.
  REQUIRE(answer.size() >= expected.size());
  CHECK(byte_vector(answer.begin(), answer.begin() + 16) ==
        byte_vector(expected.begin(), expected.begin() + 16));
}

TEST_CASE("rule 35: a_client_that_stays_in_the_handshake_is_closed_soon_after_a_stop") {
  served_loop on;
  served_connection with(on, {.handshake_timeout = seconds(60), .session = {}});
  on.settle();
  with.connection().stop();
  CHECK(with.ends_within(seconds(4)));
}

TEST_CASE("rule 35: a_stop_ends_a_connection_that_is_idle_at_once") {
  served_loop on;
  served_connection with(on);
  REQUIRE(with.enters());
  on.settle();
  with.connection().stop();
  CHECK(with.peer.is_at_end());
  CHECK(with.ends_within(seconds(5)));
}

// A stop while the answer to GO was being written was forgotten: the session began as if nothing had
// happened.
TEST_CASE("rule 35: a_stop_at_any_step_from_the_handshake_to_the_first_request_ends_the_connection") {
  served_loop on;
  for (int steps = 0; steps < 30; ++steps) {
    CAPTURE(steps);
    served_connection with(on);
    with.peer.send(joined(flags_request(3), go_request("")));
    for (int i = 0; i < steps; ++i) on.loop.context.poll_one();
    REQUIRE_FALSE(with.has_ended());
    with.connection().stop();
    on.settle();
    // Still in the handshake, it acknowledges an abort; past it, there is nothing but the end.
    if (!with.has_ended()) with.peer.send(option_request(2));
    while (!with.peer.receive_some(4096).empty()) {
    }
    with.peer.close();
    REQUIRE(with.ends_within(milliseconds(500)));
  }
}

TEST_CASE("a_connection_that_is_cut_off_ends_without_an_answer") {
  served_loop on({.size = 16 * MiB});
  served_connection with(on);
  REQUIRE(with.enters());
  for (std::uint64_t i = 0; i < 8; ++i) with.peer.send(read_request(i, 0, MiB));
  on.settle();
  with.connection().cut_off();
  CHECK(with.ends_within(seconds(5)));
  CHECK(on.loop.buffers.buffers_out() == 0);
}

TEST_CASE("an_exception_in_one_session_ends_that_session_only") {
  served_loop on;
  served_connection other(on);
  REQUIRE(other.enters());
  REQUIRE(other.is_served());
  served_connection with(on);
  {
    const failing_memory none(server::receive_buffer::capacity);
    with.peer.send(joined(flags_request(3), go_request("")));
    CHECK(with.ends_within(seconds(5)));
  }
  CHECK(on.log.count_with("bad_alloc") == 1);
  CHECK(other.is_served());
  served_connection next(on);
  CHECK(next.enters());
  CHECK(next.is_served());
}

// The session went while its requests were in flight, and took the program with it.
TEST_CASE("an_exception_in_a_session_waits_for_what_is_in_flight") {
  served_loop on({.size = 16 * MiB});
  served_connection other(on);
  REQUIRE(other.enters());
  REQUIRE(other.is_served());
  served_connection with(on);
  REQUIRE(with.enters());
  packet all;
  for (std::uint64_t i = 0; i < 8; ++i) all.append(read_request(i, 0, MiB));
  SECTION("in the kernel") {
    // Eight slots are there for use again; the ninth is new.
    with.peer.send(byte_vector(all));
    CHECK(with.peer.receive(8 * (reply_size + MiB)).size() == 8 * (reply_size + MiB));
    on.settle();
    const failing_memory none(sizeof(server::request_slot));
    with.peer.send(joined(all, read_request(8, 0, 512)));
    on.settle();
  }
  SECTION("waiting for the socket") {
    with.peer.send(byte_vector(all));
    on.settle();
    const failing_memory none(sizeof(server::request_slot));
    with.peer.send(read_request(8, 0, 512));
    on.settle();
  }
  CHECK(with.peer.receive(8 * (reply_size + MiB)).size() == 8 * (reply_size + MiB));
  CHECK(with.peer.is_at_end());
  CHECK(with.ends_within(seconds(5)));
  CHECK(on.log.count_with("bad_alloc") == 1);
  CHECK(on.loop.buffers.buffers_out() == 0);
  CHECK(other.is_served());
}
