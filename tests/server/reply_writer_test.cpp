#include "server/reply_writer.hpp"

#include <deque>
#include <vector>

#include "protocol/replies.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

// A writer on one end of a stream, and the replies given to it.
class writer_rig {
 public:
  explicit writer_rig(int type = SOCK_STREAM, int send_buffer = 0)
      : ends_(on.connect(type)),
        fd_(ends_.served.native_handle()),
        stream_(with_send_buffer(std::move(ends_.served), send_buffer)) {}

  served_loop on;
  client& peer() { return ends_.peer; }
  int fd() const { return fd_; }  // of our end

  // A reply that carries so many bytes.
  void add(std::size_t payload_length) {
    auto& slot = slots_.emplace_back();
    auto& payload =
        payloads_.emplace_back(pattern(payload_length, static_cast<std::uint32_t>(slots_.size())));
    slot.asked.cookie = slots_.size();
    const auto header = std::span(slot.reply.header).first<protocol::simple_reply_size>();
    protocol::encode_simple_reply(header, protocol::error::none, slot.asked.cookie);
    slot.reply.add(header);
    slot.reply.add(payload);
    expected = joined(std::move(expected), simple_reply(slot.asked.cookie, nbd::ok, payload));
    writer.add(slot);
  }

  // A reply in pieces of 1, 2, 3, ... bytes.
  void add_in_pieces(std::size_t count) {
    auto& slot = slots_.emplace_back();
    auto& payload = payloads_.emplace_back(pattern(count * (count + 1) / 2));
    slot.asked.cookie = slots_.size();
    std::span<const std::byte> rest(payload);
    for (std::size_t length = 1; length <= count; ++length) {
      slot.reply.add(rest.first(length));
      rest = rest.subspan(length);
    }
    expected = joined(std::move(expected), payload);
    writer.add(slot);
  }

  byte_vector expected;                 // what the peer must receive
  std::vector<std::uint64_t> released;  // cookies, in order
  std::size_t progresses = 0;

 private:
  static server::transport::socket with_send_buffer(server::transport::socket socket, int send_buffer) {
    if (send_buffer != 0) socket.set_option(boost::asio::socket_base::send_buffer_size(send_buffer));
    return socket;
  }

  stream_ends ends_;
  int fd_;
  server::transport stream_;
  std::deque<server::request_slot> slots_;
  std::deque<byte_vector> payloads_;

 public:
  server::reply_writer writer{stream_,
                              [this](server::request_slot& slot) {
                                // Whoever still reads it reads rubbish.
                                std::ranges::fill(payloads_[slot.asked.cookie - 1], std::byte{0});
                                released.push_back(slot.asked.cookie);
                              },
                              [this] { ++progresses; }};
};

std::vector<std::uint64_t> one_to(std::uint64_t last) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t i = 1; i <= last; ++i) numbers.push_back(i);
  return numbers;
}

}  // namespace

TEST_CASE("nothing_is_sent_before_send") {
  writer_rig rig;
  rig.add(0);
  CHECK(rig.peer().receive_now(1).empty());
  CHECK(rig.released.empty());
}

TEST_CASE("sending_nothing_sends_nothing") {
  writer_rig rig(SOCK_SEQPACKET);
  rig.writer.send();
  CHECK(rig.peer().receive_now(1).empty());
  CHECK_FALSE(rig.writer.is_waiting());
}

TEST_CASE("replies_leave_in_the_order_in_which_they_were_added") {
  writer_rig rig;
  for (const std::size_t length : {0U, 5U, 0U, 0U, 1000U, 1U}) rig.add(length);
  rig.writer.send();
  CHECK(rig.peer().receive_now(100'000) == rig.expected);
  CHECK(rig.released == one_to(6));
  CHECK_FALSE(rig.writer.is_waiting());
  CHECK(rig.progresses == 0);
}

TEST_CASE("what_is_ready_leaves_in_one_gathered_write") {
  writer_rig rig(SOCK_SEQPACKET);
  for (int i = 0; i < 128; ++i) rig.add(i % 3 == 0 ? 0 : 100);
  rig.writer.send();
  CHECK((rig.peer().receive_now(MiB) == rig.expected));
  CHECK(rig.peer().receive_now(MiB).empty());
  CHECK(rig.released == one_to(128));
}

TEST_CASE("more_than_one_write_can_gather_takes_several") {
  writer_rig rig(SOCK_SEQPACKET);
  for (int i = 0; i < 300; ++i) rig.add(1);
  rig.writer.send();
  byte_vector received;
  int writes = 0;
  while (received.size() < rig.expected.size()) {
    received = joined(std::move(received), rig.peer().receive_some(MiB));
    ++writes;
  }
  CHECK(writes == 3);
  CHECK((received == rig.expected));
  CHECK(rig.released == one_to(300));
}

TEST_CASE("a_full_socket_is_waited_for_and_resumed_at_the_very_byte") {
  const std::size_t length = GENERATE(0U, 1U, 15U, 700U, 5000U, 300'000U);
  writer_rig rig(SOCK_STREAM, 1);
  const std::size_t count = length > 100'000 ? 5 : 400;
  for (std::size_t i = 0; i < count; ++i) rig.add(length + i % 2);
  rig.writer.send();
  REQUIRE(rig.writer.is_waiting());
  CHECK(rig.released.size() < count);
  // In small sips of odd lengths, so that the socket takes odd lengths too.
  byte_vector received;
  for (std::size_t sip = 1; received.size() < rig.expected.size(); sip = (sip * 31 + 7) % 9001) {
    const byte_vector some = rig.peer().receive_now(sip);
    received.insert(received.end(), some.begin(), some.end());
    if (some.empty()) rig.on.settle();
  }
  CHECK((received == rig.expected));
  rig.on.settle();
  CHECK(rig.released == one_to(count));
  CHECK(rig.progresses > 0);
  CHECK_FALSE(rig.writer.is_waiting());
  CHECK_FALSE(rig.writer.failure());
}

TEST_CASE("replies_that_are_added_while_the_socket_is_full_follow_in_order") {
  writer_rig rig(SOCK_STREAM, 1);
  rig.add(100'000);
  rig.writer.send();
  REQUIRE(rig.writer.is_waiting());
  for (int i = 0; i < 5; ++i) {
    rig.add(10);
    rig.writer.send();
  }
  CHECK((rig.peer().receive(rig.expected.size()) == rig.expected));
  rig.on.settle();
  CHECK(rig.released == one_to(6));
}

TEST_CASE("a_reply_is_released_only_when_all_of_it_is_out") {
  writer_rig rig(SOCK_STREAM, 1);
  rig.add(200'000);
  rig.writer.send();
  CHECK(rig.released.empty());
  std::size_t received = 0;
  while (rig.released.empty()) {
    received += rig.peer().receive_now(1000).size();
    rig.on.settle();
    REQUIRE(received <= rig.expected.size());
  }
  CHECK(received < rig.expected.size());  // the rest is the socket's
  CHECK(received + rig.peer().receive(rig.expected.size() - received).size() == rig.expected.size());
}

TEST_CASE("a_peer_that_is_gone_releases_everything_unsent") {
  writer_rig rig;
  for (int i = 0; i < 200; ++i) rig.add(10);
  rig.peer().close();
  rig.writer.send();
  CHECK(rig.released == one_to(200));
  CHECK(rig.writer.failure() == std::errc::broken_pipe);
  CHECK_FALSE(rig.writer.is_waiting());
}

TEST_CASE("a_peer_that_goes_while_the_socket_is_full_releases_everything") {
  writer_rig rig;
  for (int i = 0; i < 10; ++i) rig.add(MiB);
  rig.writer.send();
  REQUIRE(rig.writer.is_waiting());
  REQUIRE(rig.released.size() < 10);
  rig.peer().close();
  rig.on.settle();
  CHECK(rig.released == one_to(10));
  CHECK(rig.writer.failure());
  CHECK(rig.progresses == 1);
}

// It would wait for replies, and we for requests.
TEST_CASE("a_peer_that_lives_sees_that_nothing_can_be_sent_any_more") {
  writer_rig rig;
  ::shutdown(rig.fd(), SHUT_WR);
  rig.add(1);
  rig.writer.send();
  REQUIRE(rig.writer.failure() == std::errc::broken_pipe);
  std::byte said{};
  CHECK(::recv(rig.fd(), &said, 1, MSG_DONTWAIT) == 0);  // an end, where there was no more than silence
}

TEST_CASE("after_a_failure_replies_are_released_without_being_sent") {
  writer_rig rig;
  rig.peer().close();
  rig.add(1);
  rig.writer.send();
  rig.add(1);
  rig.writer.send();
  CHECK(rig.released == one_to(2));
  CHECK_FALSE(rig.writer.is_waiting());
}

// More than one gathered write has.
TEST_CASE("replies_of_very_many_pieces_arrive_whole") {
  const int send_buffer = GENERATE(0, 4096);
  writer_rig rig(SOCK_STREAM, send_buffer);
  for (const std::size_t count : {1U, 255U, 256U, 257U, 600U, 3U}) {
    rig.add_in_pieces(count);
    rig.add(10);
  }
  rig.writer.send();
  CHECK((rig.peer().receive(rig.expected.size()) == rig.expected));
  CHECK(rig.released == one_to(12));
}
