// What a session may have in flight: requests, bytes, and memory for clients that only ever send.
#include <algorithm>

#include "server/receive_buffer.hpp"
#include "server/session.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

byte_vector repeated(std::size_t count, const std::function<byte_vector(std::uint64_t)>& make) {
  packet all;
  for (std::uint64_t cookie = 0; cookie < count; ++cookie) all.append(make(cookie));
  return all;
}

std::map<std::uint64_t, std::size_t> replies_of(std::size_t count, std::size_t length) {
  std::map<std::uint64_t, std::size_t> expected;
  for (std::uint64_t cookie = 0; cookie < count; ++cookie) expected[cookie] = length;
  return expected;
}

// Sends requests for as long as the session takes them, and never looks at a reply: how many bytes went in.
std::size_t stuff(served_session& with, served_loop& on, std::span<const std::byte> all) {
  std::size_t sent = 0;
  for (std::size_t more = 1; more != 0;) {
    more = with.peer.send_now(all.subspan(sent));
    sent += more;
    on.settle();
  }
  return sent;
}

// Sends the rest as it is taken, and reads until nothing more comes: how many bytes came.
std::size_t answers_are_taken(served_session& with, served_loop& on, std::span<const std::byte> all,
                              std::size_t sent) {
  std::size_t received = 0;
  for (bool moves = true; moves;) {
    const std::size_t taken = sent < all.size() ? with.peer.send_now(all.subspan(sent)) : 0;
    const std::size_t came = with.peer.receive_now(MiB).size();
    sent += taken;
    received += came;
    on.settle();
    moves = taken != 0 || came != 0;
  }
  return received;
}

}  // namespace

TEST_CASE("reads_at_the_limit_of_requests_and_past_it_are_all_served") {
  const std::size_t count = GENERATE(3U, 4U, 5U, 13U);
  served_loop on;
  served_session with(on, {.limits = {.requests_max = 4}});
  with.peer.send(repeated(count, [](auto cookie) { return read_request(cookie, cookie * 512, 512); }));
  for (const auto& [cookie, reply] : with.peer.receive_replies(replies_of(count, 512)))
    CHECK(reply.error == nbd::ok);
}

// Their replies were sent, and their slots free again, before the session began to wait for a free slot.
TEST_CASE("refusals_at_the_limit_of_requests_and_past_it_are_all_answered") {
  const std::size_t count = GENERATE(3U, 4U, 5U, 8U, 9U, 1000U);
  served_loop on;
  served_session with(on, {.limits = {.requests_max = 4}});
  with.peer.send(repeated(count, [](auto cookie) { return request(nbd::block_status, cookie, 0, 512); }));
  for (const auto& [cookie, reply] : with.peer.receive_replies(replies_of(count, 0)))
    CHECK(reply.error == nbd::einval);
}

TEST_CASE("no_more_requests_are_in_flight_than_the_limit_allows") {
  served_loop on;
  served_session with(on, {.limits = {.requests_max = 4}});
  with.peer.send(repeated(9, [](auto cookie) { return read_request(cookie, 0, 64 * KiB); }));
  std::size_t most = 0;
  CHECK(on.run_until([&] {
    most = std::max(most, on.loop.buffers.buffers_out());
    return most == 4;
  }));
  for (int i = 0; i < 50; ++i) {
    on.settle();
    most = std::max(most, on.loop.buffers.buffers_out());
  }
  CHECK(most == 4);
  CHECK(with.peer.receive_replies(replies_of(9, 64 * KiB)).size() == 9);
  CHECK(on.loop.buffers.buffers_out() == 0);
}

TEST_CASE("no_more_bytes_are_in_flight_than_the_limit_allows") {
  // The replies do not fit in the socket, so buffers stay out until the client reads.
  served_loop on({.size = 64 * MiB});
  served_session with(on, {.limits = {.in_flight_bytes_max = 4 * MiB}});
  SECTION("at the limit") {
    with.peer.send(repeated(4, [](auto cookie) { return read_request(cookie, 0, MiB); }));
    on.settle();
    CHECK(on.loop.buffers.buffers_out() == 4);
    CHECK(with.peer.receive_replies(replies_of(4, MiB)).size() == 4);
  }
  SECTION("past the limit") {
    with.peer.send(repeated(5, [](auto cookie) { return read_request(cookie, 0, MiB); }));
    on.settle();
    CHECK(on.loop.buffers.buffers_out() == 4);
    CHECK(with.peer.receive_replies(replies_of(5, MiB)).size() == 5);
  }
  SECTION("padding counts") {
    with.peer.send(repeated(4, [](auto cookie) { return read_request(cookie, 1, MiB); }));
    on.settle();
    CHECK(on.loop.buffers.buffers_out() == 2);
    CHECK(with.peer.receive_replies(replies_of(4, MiB)).size() == 4);
  }
  on.settle();
  CHECK(on.loop.buffers.buffers_out() == 0);
}

TEST_CASE("a_single_request_that_is_larger_than_the_limit_is_served") {
  served_loop on({.size = 64 * MiB});
  served_session with(on, {.limits = {.in_flight_bytes_max = MiB}});
  const byte_vector content = pattern(32 * MiB);
  with.peer.send(joined(write_request(0, 0, content), read_request(1, 0, 32 * MiB)));
  const auto replies = with.peer.receive_replies({{0, 0}, {1, 32 * MiB}});
  CHECK(replies.at(0).error == nbd::ok);
  CHECK(replies.at(1).error == nbd::ok);
  with.peer.send(read_request(2, 0, 32 * MiB));
  CHECK((with.peer.receive(reply_size + 32 * MiB) == simple_reply(2, nbd::ok, content)));
}

TEST_CASE("rule 34: a_client_that_does_not_read_is_not_read_from_until_it_does", "[simple]") {
  served_loop on;
  served_session with(on, {.limits = {.requests_max = 16, .in_flight_bytes_max = MiB}});
  const std::size_t count = 40'000;
  const byte_vector all = repeated(count, [](auto cookie) { return read_request(cookie, 0, 1024); });
  const std::size_t taken = stuff(with, on, all);
  // The receive buffer, and what the socket holds.
  CHECK(taken < server::receive_buffer::capacity + 512 * KiB);
  CHECK(on.loop.buffers.buffers_out() == 16);
  CHECK(on.loop.buffers.pooled_bytes() == storage::buffer_pool::chunk_size);
  CHECK(answers_are_taken(with, on, all, taken) == count * (reply_size + 1024));
}

TEST_CASE("rule 34: writes_of_a_client_that_does_not_read_stop_as_well", "[simple]") {
  served_loop on({.size = 4 * MiB});
  served_session with(on, {.limits = {.requests_max = 8, .in_flight_bytes_max = MiB}, .send_buffer = 1});
  const byte_vector all =
      repeated(2000, [](auto cookie) { return write_request(cookie, cookie % 64 * 4096, pattern(4096)); });
  const std::size_t taken = stuff(with, on, all);
  CHECK(taken < all.size());
  CHECK(on.loop.buffers.buffers_out() <= 8);
  CHECK(answers_are_taken(with, on, all, taken) == 2000 * reply_size);
}

TEST_CASE("rule 34: refusals_of_a_client_that_does_not_read_stop_as_well", "[simple]") {
  served_loop on;
  served_session with(on, {.limits = {.requests_max = 8}, .send_buffer = 1});
  const std::size_t count = 60'000;
  const byte_vector all = repeated(count, [](auto cookie) { return request(nbd::cache, cookie); });
  const std::size_t taken = stuff(with, on, all);
  CHECK(taken < server::receive_buffer::capacity + 512 * KiB);
  CHECK(answers_are_taken(with, on, all, taken) == count * reply_size);
}

TEST_CASE("many_requests_in_one_segment_reach_the_disk_in_few_calls") {
  served_loop on;
  served_session with(on, {.limits = {.requests_max = 512}});
  const auto before = on.loop.aio.counts();
  with.peer.send(repeated(400, [](auto cookie) { return read_request(cookie, cookie * 512, 512); }));
  CHECK(with.peer.receive_replies(replies_of(400, 512)).size() == 400);
  const auto& after = on.loop.aio.counts();
  CHECK(after.requests - before.requests == 400);
  CHECK(after.submit_calls - before.submit_calls <= 400 / 4);
}

TEST_CASE("the_replies_of_a_batch_leave_in_one_gathered_write") {
  served_loop on;
  served_session with(on, {.socket_type = SOCK_SEQPACKET});
  SECTION("of requests that are refused at once") {
    with.peer.send(repeated(50, [](auto cookie) { return request(nbd::cache, cookie); }));
    CHECK(with.peer.receive_some(MiB).size() == 50 * reply_size);
  }
  SECTION("of requests that are done in the same turn") {
    with.peer.send(repeated(50, [](auto cookie) { return request(nbd::read, cookie, 0, 0); }));
    CHECK(with.peer.receive_some(MiB).size() == 50 * reply_size);
  }
  SECTION("header and data of a read together") {
    with.peer.send(read_request(1, 0, 5000));
    CHECK((with.peer.receive_some(MiB) == simple_reply(1, nbd::ok, byte_vector(5000))));
  }
}

TEST_CASE("buffers_go_back_when_their_replies_are_out") {
  served_loop on;
  served_session with(on);
  for (int i = 0; i < 100; ++i) {
    with.peer.send(read_request(1, 0, 64 * KiB));
    REQUIRE(with.peer.receive(reply_size + 64 * KiB).size() == reply_size + 64 * KiB);
  }
  on.settle();
  CHECK(on.loop.buffers.buffers_out() == 0);
  CHECK(on.loop.buffers.pooled_bytes() == storage::buffer_pool::chunk_size);
}
