#include "protocol/replies.hpp"

#include "tests/protocol/bytes.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

TEST_CASE("simple_replies_round_trip") {
  struct row {
    error result;
    std::uint64_t cookie;
  };
  for (const row& each : {row{error::none, 0}, row{error::eio, 1}, row{error::enospc, ~std::uint64_t{0}},
                          row{error::eshutdown, 0x0123456789abcdef}}) {
    byte_vector wire(simple_reply_size);
    encode_simple_reply(std::span(wire).first<simple_reply_size>(), each.result, each.cookie);
    CHECK(
        wire ==
        byte_vector(packet().u32(0x67446698).u32(static_cast<std::uint32_t>(each.result)).u64(each.cookie)));
    const auto decoded = decode_simple_reply(std::span<const std::byte>(wire).first<simple_reply_size>());
    REQUIRE(decoded);
    CHECK(decoded->result == each.result);
    CHECK(decoded->cookie == each.cookie);
  }
}

TEST_CASE("a_simple_reply_with_another_magic_is_none") {
  const byte_vector wire = packet().u32(0x67446699).zeroes(12);
  CHECK_FALSE(decode_simple_reply(std::span(wire).first<simple_reply_size>()));
}
