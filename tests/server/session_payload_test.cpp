// Payloads of every size: small ones come by way of the receive buffer, large ones straight from the socket.
#include <algorithm>

#include "server/receive_buffer.hpp"
#include "server/session.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

// A write, and behind it, in the same breath, a read of something else: is the session still in step?
void write_and_read_back(served_session& with, served_loop& on, std::uint64_t offset, std::size_t length) {
  CAPTURE(offset, length);
  const byte_vector content = pattern(length, static_cast<std::uint32_t>(length + offset));
  with.peer.send(joined(write_request(1, offset, content), read_request(2, 60 * MiB, 100)));
  const auto first = with.peer.receive_replies({{1, 0}, {2, 100}});
  REQUIRE(first.at(1).error == nbd::ok);
  REQUIRE(first.at(2).data == byte_vector(100));
  REQUIRE((read_file(on.path, offset, length) == content));
  with.peer.send(read_request(3, offset, length));
  REQUIRE((with.peer.receive(reply_size + length) == simple_reply(3, nbd::ok, content)));
}

}  // namespace

TEST_CASE("payloads_around_every_border_arrive_whole") {
  const std::uint64_t border = GENERATE(4 * KiB, 32 * KiB, 256 * KiB);
  served_loop on({.size = 64 * MiB});
  served_session with(on);
  for (const std::size_t length : {border - 29, border - 28, border - 27, border - 1, border, border + 1,
                                   border + 28, border + 4096, border + 4097}) {
    write_and_read_back(with, on, 0, length);
    write_and_read_back(with, on, 777, length);
  }
}

TEST_CASE("payloads_of_32_MiB_arrive_whole") {
  served_loop on({.size = 64 * MiB});
  served_session with(on);
  write_and_read_back(with, on, 0, 32 * MiB);
  write_and_read_back(with, on, 513, 32 * MiB - 1);
}

TEST_CASE("payloads_past_32_MiB_are_einval") {
  served_loop on({.size = 64 * MiB});
  served_session with(on);
  with.peer.send(joined(write_request(1, 0, byte_vector(32 * MiB + 1)), read_request(2, 0, 32 * MiB + 1)));
  const auto replies = with.peer.receive_replies({{1, 0}, {2, 0}});
  CHECK(replies.at(1).error == nbd::einval);
  CHECK(replies.at(2).error == nbd::einval);
}

// Small writes one after the other, so that requests lie across the end of the receive buffer.
TEST_CASE("many_small_writes_in_one_stream_arrive_whole") {
  const std::size_t count = 200, length = 4096;
  served_loop on({.size = count * length});
  served_session with(on);
  const byte_vector content = pattern(count * length);
  packet all;
  std::map<std::uint64_t, std::size_t> expected;
  for (std::size_t i = 0; i < count; ++i) {
    const auto begin = content.begin() + static_cast<std::ptrdiff_t>(i * length);
    all.append(write_request(i, i * length, {begin, begin + length}));
    expected[i] = 0;
  }
  with.peer.send(byte_vector(all));
  for (const auto& [cookie, reply] : with.peer.receive_replies(expected)) REQUIRE(reply.error == nbd::ok);
  CHECK((read_file(on.path, 0, content.size()) == content));
}

TEST_CASE("a_large_payload_that_dribbles_in_arrives_whole") {
  served_loop on;
  served_session with(on);
  const byte_vector content = pattern(100'000);
  const byte_vector all = joined(write_request(1, 3, content), read_request(2, 3, 10));
  std::span<const std::byte> left(all);
  for (std::size_t step = 1; !left.empty(); step = step * 7 % 9973) {
    const auto piece = left.first(std::min(step, left.size()));
    with.peer.send(piece);
    left = left.subspan(piece.size());
    on.settle();
  }
  CHECK(with.peer.receive_replies({{1, 0}, {2, 10}}).at(1).error == nbd::ok);
  CHECK((read_file(on.path, 3, content.size()) == content));
}

TEST_CASE("the_next_requests_come_with_the_end_of_a_large_payload") {
  served_loop on({.size = 4 * MiB});
  // Each message is one receive; what does not fit in the space offered is lost, which would show.
  served_session with(on, {.socket_type = SOCK_SEQPACKET});
  const byte_vector content = pattern(100'000);
  const byte_vector asked = write_request(1, 0, content);
  with.peer.send(std::span(asked).first(40'000));
  on.settle();
  packet rest;
  rest.append({asked.begin() + 40'000, asked.end()});
  for (std::uint64_t i = 0; i < 4096 / 28; ++i) rest.append(request(nbd::read, 100 + i, 0, 0));
  with.peer.send(byte_vector(rest));
  std::size_t received = 0;
  while (received < (1 + 4096 / 28) * reply_size) received += with.peer.receive_some(MiB).size();
  CHECK((read_file(on.path, 0, content.size()) == content));
}
