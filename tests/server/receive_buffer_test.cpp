#include "server/receive_buffer.hpp"

#include "tests/protocol/bytes.hpp"
#include "tests/server/temporary_folder.hpp"
#include "tests/support/catch.hpp"

using aionbd::server::receive_buffer;
using namespace aionbd::tests;

namespace {

void put(receive_buffer& into, const byte_vector& bytes) {
  const auto space = into.space();
  REQUIRE(space.size() >= bytes.size());
  std::copy(bytes.begin(), bytes.end(), space.begin());
  into.filled(bytes.size());
}

byte_vector content_of(const receive_buffer& buffer) {
  return exact_copy(buffer.bytes());
}

}  // namespace

TEST_CASE("a_new_receive_buffer_is_empty_and_offers_all_its_space") {
  receive_buffer buffer;
  CHECK(buffer.empty());
  CHECK(buffer.bytes().empty());
  CHECK(buffer.space().size() == receive_buffer::capacity);
}

TEST_CASE("what_was_received_is_there_until_it_is_consumed") {
  receive_buffer buffer;
  put(buffer, pattern(100));
  CHECK(content_of(buffer) == pattern(100));
  buffer.consume(40);
  CHECK_FALSE(buffer.empty());
  const byte_vector all = pattern(100);
  CHECK(content_of(buffer) == byte_vector(all.begin() + 40, all.end()));
  buffer.consume(0);
  buffer.consume(60);
  CHECK(buffer.empty());
}

TEST_CASE("what_is_left_moves_to_the_front_when_more_is_to_come") {
  receive_buffer buffer;
  const byte_vector all = pattern(receive_buffer::capacity);
  put(buffer, all);
  buffer.consume(all.size() - 27);
  CHECK(buffer.space().size() == receive_buffer::capacity - 27);
  put(buffer, pattern(10, 2));
  CHECK(content_of(buffer) == joined({all.end() - 27, all.end()}, pattern(10, 2)));
}

TEST_CASE("the_space_offered_can_be_limited") {
  receive_buffer buffer;
  CHECK(buffer.space(4096).size() == 4096);
  put(buffer, pattern(receive_buffer::capacity - 100));
  CHECK(buffer.space(4096).size() == 100);
  CHECK(buffer.space(99).size() == 99);
}

TEST_CASE("a_full_receive_buffer_can_be_used_again_whole") {
  receive_buffer buffer;
  for (int round = 0; round < 3; ++round) {
    put(buffer, pattern(receive_buffer::capacity));
    buffer.consume(receive_buffer::capacity);
    CHECK(buffer.space().size() == receive_buffer::capacity);
  }
}
