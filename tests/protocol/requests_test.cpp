// Requests on the wire, the payloads behind them, and the errors and sentences they are refused with. What
// validate() says of them: validate_test.cpp.
#include "protocol/requests.hpp"

#include <algorithm>
#include <cerrno>
#include <string>

#include "protocol/text.hpp"
#include "tests/protocol/bytes.hpp"
#include "tests/protocol/setting.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

namespace {

byte_vector on_the_wire(const request& sent, reply_mode mode) {
  packet wire;
  wire.u32(mode == reply_mode::extended ? 0x21e41c71 : 0x25609513);
  wire.u16(sent.flags).u16(static_cast<std::uint16_t>(sent.what)).u64(sent.cookie).u64(sent.offset);
  if (mode == reply_mode::extended) return wire.u64(sent.length);
  return wire.u32(sent.length);
}

error take(request& asked, std::uint64_t effect_length, std::uint32_t context_id, const terms& agreed) {
  const byte_vector payload = packet().u64(effect_length).u32(context_id);
  return take_block_status_payload(asked, std::span(payload).first<block_status_payload_size>(), agreed);
}

const request rows[] = {
    {command::read, 0, 0, 0, 0},
    {command::write, command_flag::fua, 0x0123456789abcdef, 4096, 512},
    {command::write_zeroes, 0xffff, ~std::uint64_t{0}, ~std::uint64_t{0}, length_max},
    {static_cast<command>(0xffff), 0x8000, 1, 2, 3},
};

}  // namespace

TEST_CASE("requests_round_trip") {
  for (const request& sent : rows) {
    byte_vector wire(request_size);
    encode_request(std::span(wire).first<request_size>(), sent);
    CHECK(wire == on_the_wire(sent, reply_mode::simple));
    CHECK(decode_request(std::span<const std::byte>(wire).first<request_size>()).value() == sent);
  }
}

TEST_CASE("requests_of_every_mode_round_trip") {
  CHECK(request_header_size(reply_mode::simple) == 28);
  CHECK(request_header_size(reply_mode::structured) == 28);
  CHECK(request_header_size(reply_mode::extended) == 32);
  for (const reply_mode mode : every::mode) {
    for (const request& sent : rows) {
      byte_vector wire(request_header_size(mode));
      encode_request(wire, sent, mode);
      CHECK(wire == on_the_wire(sent, mode));
      CHECK(decode_request(exact_copy(wire), mode).value() == sent);
      CHECK(decode_request(joined(wire, byte_vector(7)), mode).value() == sent);
    }
  }
}

TEST_CASE("rule 17: lengths_of_64_bits_round_trip_with_extended_headers") {
  for (const std::uint64_t length : {std::uint64_t{1} << 32U, std::uint64_t{1} << 63U, ~std::uint64_t{0}}) {
    const request sent{command::trim, 0, 1, 2, length};
    byte_vector wire(extended_request_size);
    encode_request(wire, sent, reply_mode::extended);
    CHECK(decode_request(wire, reply_mode::extended).value().length == length);
  }
}

TEST_CASE("a_request_with_another_magic_is_none") {
  for (const std::uint32_t magic : {0U, 0x12560953U, 0x25609512U, 0x25609514U, 0x67446698U, 0x21e41c71U}) {
    const byte_vector wire = packet().u32(magic).zeroes(request_size - 4);
    CHECK_FALSE(decode_request(std::span(wire).first<request_size>()));
    CHECK_FALSE(decode_request(wire, reply_mode::structured));
  }
  for (const std::uint32_t magic : {0U, 0x25609513U, 0x21e41c70U, 0x6e8a278cU}) {
    const byte_vector wire = packet().u32(magic).zeroes(extended_request_size - 4);
    CHECK_FALSE(decode_request(wire, reply_mode::extended));
  }
}

TEST_CASE("rule 14: a_refused_write_still_announces_its_payload") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 8 * gibibyte, every::export_flag | transmission_flag::read_only);
    const request refused = with.ask(command::write, 0, 31 * mebibyte);
    CHECK(validate(refused, with.agreed) == error::eperm);
    CHECK(payload_length(refused, mode) == 31 * mebibyte);
    CHECK_FALSE(payload_is_past_all_limits(refused, mode));
  }
}

TEST_CASE("defect: an_error_is_not_sent_before_a_payload_of_33_mib_is_drained") {
  for (const reply_mode mode : {reply_mode::simple, reply_mode::structured}) {
    const setting with(mode);
    const request refused = with.ask(command::write, 0, 33 * mebibyte);
    CHECK(validate(refused, with.agreed) == error::einval);
    CHECK(payload_length(refused, mode) == 33 * mebibyte);
    CHECK_FALSE(payload_is_past_all_limits(refused, mode));
  }
}

TEST_CASE("rule 14: only_write_carries_a_payload") {
  for (unsigned number = 0; number < 0x10000; ++number) {
    const auto what = static_cast<command>(number);
    const std::uint64_t expected = what == command::write ? 4096U : 0U;
    if (payload_length({what, 0, 0, 0, 4096}) != expected) FAIL("command " << number);
    if (payload_length({what, 0xffff, 0, 0, 4096}, reply_mode::structured) != expected)
      FAIL("command " << number);
  }
}

TEST_CASE("rule 14: with_extended_headers_the_flag_announces_a_payload_and_a_write_always_has_one") {
  for (unsigned number = 0; number < 0x10000; ++number) {
    const auto what = static_cast<command>(number);
    const std::uint64_t bare = what == command::write ? 4096U : 0U;
    if (payload_length({what, 0xffdf, 0, 0, 4096}, reply_mode::extended) != bare) FAIL("command " << number);
    if (payload_length({what, 0x0020, 0, 0, 4096}, reply_mode::extended) != 4096) FAIL("command " << number);
  }
}

TEST_CASE("rule 14: a_payload_that_the_command_does_not_have_is_refused_and_drained") {
  const setting with(reply_mode::extended);
  for (const command what : {command::read, command::flush, command::trim, command::cache,
                             command::write_zeroes, command::resize, static_cast<command>(99)}) {
    CAPTURE(what);
    const request asked = with.ask(what, 0, 4096, command_flag::payload_len);
    CHECK(validate(asked, with.agreed) == error::einval);
    CHECK(payload_length(asked, reply_mode::extended) == 4096);
    CHECK_FALSE(payload_is_past_all_limits(asked, reply_mode::extended));
  }
}

TEST_CASE("rule 14: payloads_are_drained_up_to_64_mib_and_not_a_byte_more") {
  for (const reply_mode mode : {reply_mode::simple, reply_mode::structured}) {
    CHECK_FALSE(payload_is_past_all_limits({command::write, 0, 0, 0, payload_drain_max}, mode));
    CHECK(payload_is_past_all_limits({command::write, 0, 0, 0, payload_drain_max + 1}, mode));
    CHECK(payload_is_past_all_limits({command::write, 0, 0, 0, length_max}, mode));
    CHECK_FALSE(payload_is_past_all_limits({command::read, 0, 0, 0, length_max}, mode));
  }
}

TEST_CASE("rule 14: with_extended_headers_payloads_are_drained_up_to_32_mib_and_not_a_byte_more") {
  constexpr auto mode = reply_mode::extended;
  for (const command what : {command::read, command::write, command::block_status}) {
    const auto asked = [&](unsigned flags, std::uint64_t length) {
      return request{what, static_cast<std::uint16_t>(flags), 0, 0, length};
    };
    CHECK_FALSE(payload_is_past_all_limits(asked(command_flag::payload_len, request_payload_max), mode));
    CHECK(payload_is_past_all_limits(asked(command_flag::payload_len, request_payload_max + 1), mode));
    CHECK(payload_is_past_all_limits(asked(command_flag::payload_len, ~std::uint64_t{0}), mode));
    CHECK(payload_is_past_all_limits(asked(0, ~std::uint64_t{0}), mode) == (what == command::write));
  }
}

TEST_CASE("payloads_of_block_status_round_trip") {
  byte_vector wire(block_status_payload_size);
  encode(std::span(wire).first<block_status_payload_size>(),
         block_status_payload{0x0102030405060708, 0x090a0b0c});
  CHECK(wire == byte_vector(packet().u64(0x0102030405060708).u32(0x090a0b0c)));
  const auto decoded =
      decode_block_status_payload(std::span<const std::byte>(wire).first<block_status_payload_size>());
  CHECK(decoded.effect_length == 0x0102030405060708);
  CHECK(decoded.context_id == 0x090a0b0c);
}

TEST_CASE("a_payload_of_block_status_names_the_one_context") {
  const setting with(reply_mode::extended, 8 * gibibyte);
  // 8 bytes of length and 4 for each context: none, one, two (of which one must be wrong), and no multiple.
  for (const std::uint64_t length : {0U, 1U, 8U, 11U, 12U, 13U, 16U, 4096U}) {
    const request asked = with.ask(command::block_status, 0, length, command_flag::payload_len);
    CAPTURE(length);
    CHECK(has_block_status_payload(asked, reply_mode::extended));
    CHECK(validate(asked, with.agreed) == (length == 12 ? error::none : error::einval));
    CHECK(payload_length(asked, reply_mode::extended) == length);
  }
}

TEST_CASE("a_payload_of_block_status_brings_the_length_that_is_judged") {
  const setting with(reply_mode::extended, 8 * gibibyte);
  constexpr unsigned flags = command_flag::payload_len | command_flag::req_one;
  struct row {
    std::uint64_t offset, length;
    std::uint32_t context_id;
    error expected;
  };
  for (const row& each : {row{0, 8 * gibibyte, 1, error::none}, row{512, length_max + 1, 1, error::none},
                          row{0, 8 * gibibyte + 1, 1, error::einval},
                          row{1, ~std::uint64_t{0}, 1, error::einval}, row{0, 0, 1, error::einval}}) {
    request asked = with.ask(command::block_status, each.offset, 12, flags);
    REQUIRE(validate(asked, with.agreed) == error::none);
    CHECK(take(asked, each.length, each.context_id, with.agreed) == each.expected);
    CHECK(asked.length == each.length);
    CHECK(asked.flags == command_flag::req_one);
    CHECK_FALSE(has_block_status_payload(asked, reply_mode::extended));
    CHECK(payload_length(asked, reply_mode::extended) == 0);
  }
}

TEST_CASE("a_payload_of_block_status_that_names_another_context_is_invalid") {
  const setting with(reply_mode::extended);
  for (const std::uint32_t id : {0U, 2U, 0xffffffffU}) {
    request asked = with.ask(command::block_status, 0, 12, command_flag::payload_len);
    const error refused = take(asked, 512, id, with.agreed);
    CHECK(refused == error::einval);
    CHECK(sentence_for(refused, asked, with.agreed) ==
          "The payload names a metadata context that was not selected.");
  }
}

TEST_CASE("only_extended_headers_give_block_status_a_payload") {
  const request asked{command::block_status, command_flag::payload_len, 1, 0, 12};
  CHECK_FALSE(has_block_status_payload(asked, reply_mode::simple));
  CHECK_FALSE(has_block_status_payload(asked, reply_mode::structured));
  CHECK_FALSE(
      has_block_status_payload({command::write, command_flag::payload_len, 1, 0, 12}, reply_mode::extended));
}

TEST_CASE("rule 26: enotsup_is_sent_only_in_answer_to_fast_zero") {
  const std::error_code unsupported{EOPNOTSUPP, std::system_category()};
  const std::error_code full{ENOSPC, std::system_category()};
  const auto sent = [](command what, std::uint16_t flags, const std::error_code& why) {
    return error_for({what, flags, 0, 0, 512}, why);
  };
  CHECK(sent(command::write_zeroes, command_flag::fast_zero, unsupported) == error::enotsup);
  CHECK(sent(command::write_zeroes, command_flag::no_hole, unsupported) == error::eio);
  CHECK(sent(command::trim, 0, unsupported) == error::eio);
  CHECK(sent(command::read, command_flag::fast_zero, unsupported) == error::eio);
  CHECK(sent(command::write, 0, full) == error::enospc);
  CHECK(sent(command::write, 0, {}) == error::none);
}

TEST_CASE("a_flush_that_had_no_room_is_not_answered_as_if_asking_again_would_help") {
  const std::error_code full{ENOSPC, std::system_category()};
  CHECK(error_for({command::flush, 0, 0, 0, 0}, full) == error::eio);
  CHECK(error_for({command::write, command_flag::fua, 0, 0, 512}, full) == error::enospc);
}

TEST_CASE("every_refusal_has_a_sentence_of_its_own") {
  const setting with(reply_mode::extended);
  const setting read_only(reply_mode::extended, gibibyte, every::export_flag | transmission_flag::read_only);
  setting blocks(reply_mode::extended);
  blocks.agreed.block_sizes_requested = true;
  blocks.offered.block_size_min = 512;
  setting no_context(reply_mode::structured);
  no_context.agreed.allocation_selected = false;
  const auto sentence = [](const setting& each, const request& asked) {
    const error refused = validate(asked, each.agreed);
    REQUIRE(refused != error::none);
    return std::string(sentence_for(refused, asked, each.agreed));
  };
  const std::string sentences[] = {
      sentence(read_only, read_only.ask(command::trim, 0, 512)),
      sentence(with, with.ask(command::resize, 0, 512)),
      sentence(no_context, no_context.ask(command::block_status, 0, 512)),
      sentence(with, with.ask(command::read, 0, 512, command_flag::no_hole)),
      sentence(with, with.ask(command::write, gibibyte, 512)),
      sentence(with, with.ask(command::write_zeroes, gibibyte, 512)),
      sentence(with, with.ask(command::read, gibibyte, 512)),
      sentence(with, with.ask(command::trim, gibibyte, 512)),
      sentence(with, with.ask(command::write, 0, 33 * mebibyte)),
      sentence(with, with.ask(command::read, 0, 33 * mebibyte)),
      sentence(blocks, blocks.ask(command::read, 1, 512)),
      sentence(with, with.ask(command::block_status, 0, 0)),
      sentence(with, with.ask(command::block_status, 0, 16, command_flag::payload_len)),
  };
  for (const std::string& each : sentences) {
    CHECK_FALSE(each.empty());
    CHECK(is_well_formed(each));
    CHECK(std::count(std::begin(sentences), std::end(sentences), each) == 1);
  }
  CHECK(sentences[4] == "The write reaches past the end of the export.");
}

TEST_CASE("every_error_of_a_valid_request_has_a_sentence_and_success_has_none") {
  const setting with(reply_mode::structured);
  const request asked = with.ask(command::write_zeroes, 0, 512);
  for (const error each : {error::eperm, error::eio, error::enomem, error::einval, error::enospc,
                           error::eoverflow, error::enotsup, error::eshutdown, static_cast<error>(99)}) {
    CHECK_FALSE(sentence_for(each, asked, with.agreed).empty());
    CHECK(is_well_formed(sentence_for(each, asked, with.agreed)));
  }
  CHECK(sentence_for(error::none, asked, with.agreed).empty());
  // The error of the disk, not the objection to the request.
  const request past_end = with.ask(command::write, gibibyte, 512);
  CHECK(sentence_for(error::eshutdown, past_end, with.agreed) == "The server is shutting down.");
}
