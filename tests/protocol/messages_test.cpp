#include "protocol/messages.hpp"

#include <string>

#include "tests/protocol/bytes.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

namespace {

template <std::size_t Size, class Message>
byte_vector encoded(const Message& message) {
  byte_vector wire(Size);
  encode(std::span(wire).template first<Size>(), message);
  return wire;
}

template <std::size_t Size>
std::span<const std::byte, Size> fixed(const byte_vector& wire) {
  REQUIRE(wire.size() == Size);
  return std::span(wire).template first<Size>();
}

byte_vector with_first_bit_flipped(byte_vector wire) {
  wire.front() ^= std::byte{0x80};
  return wire;
}

}  // namespace

TEST_CASE("greetings_round_trip") {
  for (const auto flags : {std::uint16_t{0}, std::uint16_t{3}, std::uint16_t{0xffff}}) {
    const byte_vector wire = encoded<greeting_size>(greeting{flags});
    CHECK(wire == byte_vector(packet().text("NBDMAGIC").text("IHAVEOPT").u16(flags)));
    CHECK(decode_greeting(fixed<greeting_size>(wire)).value().flags == flags);
    CHECK_FALSE(decode_greeting(fixed<greeting_size>(with_first_bit_flipped(wire))));
  }
  const byte_vector old_style = packet().text("NBDMAGIC").u64(0x00420281861253).u16(0);
  CHECK_FALSE(decode_greeting(fixed<greeting_size>(old_style)));
}

TEST_CASE("client_flags_round_trip") {
  for (const std::uint32_t flags : {0U, 3U, 0xffffffffU}) {
    const byte_vector wire = encoded<client_flags_size>(client_flags{flags});
    CHECK(wire == byte_vector(packet().u32(flags)));
    CHECK(decode_client_flags(fixed<client_flags_size>(wire)).flags == flags);
  }
}

TEST_CASE("option_headers_round_trip") {
  for (const option_header& sent :
       {option_header{option::go, 6}, option_header{static_cast<option>(0xffffffff), 0xffffffff},
        option_header{option::list, 0}}) {
    const byte_vector wire = encoded<option_header_size>(sent);
    CHECK(wire ==
          byte_vector(packet().text("IHAVEOPT").u32(static_cast<std::uint32_t>(sent.what)).u32(sent.length)));
    const option_header decoded = decode_option_header(fixed<option_header_size>(wire)).value();
    CHECK(decoded.what == sent.what);
    CHECK(decoded.length == sent.length);
    CHECK_FALSE(decode_option_header(fixed<option_header_size>(with_first_bit_flipped(wire))));
  }
}

TEST_CASE("option_reply_headers_round_trip") {
  for (const option_reply_header& sent :
       {option_reply_header{option::go, option_reply::info, 12},
        option_reply_header{static_cast<option>(99), option_reply::err_unsup, 0xffffffff}}) {
    const byte_vector wire = encoded<option_reply_header_size>(sent);
    CHECK(wire == byte_vector(packet()
                                  .u64(0x0003e889045565a9)
                                  .u32(static_cast<std::uint32_t>(sent.to))
                                  .u32(static_cast<std::uint32_t>(sent.what))
                                  .u32(sent.length)));
    const option_reply_header decoded =
        decode_option_reply_header(fixed<option_reply_header_size>(wire)).value();
    CHECK(decoded.to == sent.to);
    CHECK(decoded.what == sent.what);
    CHECK(decoded.length == sent.length);
    CHECK_FALSE(decode_option_reply_header(fixed<option_reply_header_size>(with_first_bit_flipped(wire))));
  }
}

TEST_CASE("export_name_replies_round_trip") {
  const byte_vector wire = encoded<export_name_reply_size>(export_name_reply{0x0102030405060708, 0x0a0b});
  CHECK(wire == byte_vector(packet().u64(0x0102030405060708).u16(0x0a0b)));
  const export_name_reply decoded = decode_export_name_reply(fixed<export_name_reply_size>(wire));
  CHECK(decoded.size == 0x0102030405060708);
  CHECK(decoded.flags == 0x0a0b);
}

TEST_CASE("infos_of_fixed_size_round_trip") {
  const byte_vector size_wire = encoded<info_export_size>(info_export{~std::uint64_t{0}, 0x0a0b});
  CHECK(size_wire == byte_vector(packet().u16(0).u64(~std::uint64_t{0}).u16(0x0a0b)));
  const info_export size_info = decode_info_export(fixed<info_export_size>(size_wire)).value();
  CHECK(size_info.size == ~std::uint64_t{0});
  CHECK(size_info.flags == 0x0a0b);
  CHECK_FALSE(decode_info_export(fixed<info_export_size>(with_first_bit_flipped(size_wire))));

  const byte_vector block_wire = encoded<info_block_size_size>(info_block_size{512, 65536, 33'554'432});
  CHECK(block_wire == byte_vector(packet().u16(3).u32(512).u32(65536).u32(33'554'432)));
  const info_block_size block_info = decode_info_block_size(fixed<info_block_size_size>(block_wire)).value();
  CHECK(block_info.minimum == 512);
  CHECK(block_info.preferred == 65536);
  CHECK(block_info.payload_max == 33'554'432);
  CHECK_FALSE(decode_info_block_size(fixed<info_block_size_size>(with_first_bit_flipped(block_wire))));
}

TEST_CASE("export_queries_round_trip") {
  for (const std::string& name : {std::string(), std::string("disk"), std::string(4096, 'n')}) {
    for (int wanted = 0; wanted < 8; ++wanted) {
      const export_query sent{name, (wanted & 1) != 0, (wanted & 2) != 0, (wanted & 4) != 0};
      byte_vector wire;
      append(wire, sent);
      const export_query decoded = decode_export_query(exact_copy(wire)).value();
      CHECK(decoded.name == sent.name);
      CHECK(decoded.wants_name == sent.wants_name);
      CHECK(decoded.wants_description == sent.wants_description);
      CHECK(decoded.wants_block_size == sent.wants_block_size);
    }
  }
}

TEST_CASE("rule 4: a_query_cut_short_or_with_bytes_to_spare_is_no_query") {
  byte_vector wire;
  append(wire, {"disk", true, true, true});
  for (std::size_t length = 0; length < wire.size(); ++length) {
    CAPTURE(length);
    CHECK_FALSE(decode_export_query(exact_copy(std::span(wire).first(length))));
  }
  CHECK_FALSE(decode_export_query(joined(wire, packet().u8(0))));
  CHECK_FALSE(decode_export_query(joined(wire, packet().u16(0))));
}

TEST_CASE("rule 4: a_name_length_past_the_options_end_is_refused_before_it_is_used") {
  for (const std::uint64_t length :
       {1ULL, 2ULL, 0x7fffffffULL, 0xfffffffaULL, 0xfffffffeULL, 0xffffffffULL}) {
    CAPTURE(length);
    CHECK_FALSE(decode_export_query(exact_copy(byte_vector(packet().u32(length).u16(0)))));
  }
}

TEST_CASE("rule 4: unknown_and_repeated_infos_are_ignored") {
  const export_query decoded =
      decode_export_query(byte_vector(packet().u32(0).u16(5).u16(0).u16(3).u16(3).u16(4).u16(0xffff)))
          .value();
  CHECK(decoded.wants_block_size);
  CHECK_FALSE(decoded.wants_name);
  CHECK_FALSE(decoded.wants_description);
}

TEST_CASE("a_count_of_65535_infos_is_read_to_its_end") {
  packet data;
  data.u32(0).u16(65535).zeroes(2 * 65534).u16(1);
  CHECK(decode_export_query(byte_vector(data)).value().wants_name);
}

TEST_CASE("context_queries_round_trip") {
  const std::vector<std::vector<std::string>> rows = {
      {}, {""}, {"base:"}, {"base:allocation", "x-y:z", std::string(4096, 'q')}};
  for (const std::string& name : {std::string(), std::string("disk"), std::string(4096, 'n')}) {
    for (const std::vector<std::string>& queries : rows) {
      byte_vector wire;
      append(wire, context_query{name, queries});
      const context_query decoded = decode_context_query(exact_copy(wire)).value();
      CHECK(decoded.name == name);
      CHECK(decoded.queries == queries);
    }
  }
}

TEST_CASE("rule 12: a_context_query_cut_short_or_with_bytes_to_spare_is_none") {
  byte_vector wire;
  append(wire, context_query{"disk", {"base:", "base:allocation", ""}});
  for (std::size_t length = 0; length < wire.size(); ++length) {
    CAPTURE(length);
    CHECK_FALSE(decode_context_query(exact_copy(std::span(wire).first(length))));
  }
  CHECK_FALSE(decode_context_query(joined(wire, packet().u8(0))));
  CHECK_FALSE(decode_context_query(joined(wire, packet().u32(0))));
}

TEST_CASE("rule 12: a_count_of_queries_that_cannot_be_true_costs_no_memory") {
  for (const std::uint32_t count : {2U, 0x40000000U, 0x40000001U, 0x7fffffffU, 0xffffffffU})
    CHECK_FALSE(decode_context_query(exact_copy(byte_vector(packet().u32(0).u32(count).u32(0)))));
  CHECK(decode_context_query(byte_vector(packet().u32(0).u32(1).u32(0))));
}

TEST_CASE("meta_contexts_are_an_id_and_a_name") {
  byte_vector wire;
  append_meta_context(wire, option::set_meta_context, 0x01020304, "base:allocation");
  CHECK(wire ==
        byte_vector(
            packet().u64(0x0003e889045565a9).u32(10).u32(4).u32(19).u32(0x01020304).text("base:allocation")));
}

TEST_CASE("texts_longer_than_4096_bytes_are_cut_when_sent") {
  byte_vector error_reply, entry, description;
  append_option_reply(error_reply, option::go, option_reply::err_unknown, std::string(5000, 'x'));
  append_list_entry(entry, "disk", std::string(5000, 'x'));
  append_info(description, option::go, info::description, std::string(5000, 'x'));
  CHECK(error_reply.size() == option_reply_header_size + 4096);
  CHECK(entry.size() == option_reply_header_size + 4 + 4 + 4096);
  CHECK(description.size() == option_reply_header_size + 2 + 4096);
}
