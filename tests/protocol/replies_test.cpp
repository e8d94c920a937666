// Replies byte by byte, in every mode, and how a client takes them apart. Answers to BLOCK_STATUS:
// block_status_test.cpp.
#include "protocol/replies.hpp"

#include <algorithm>
#include <optional>
#include <string>

#include "protocol/text.hpp"
#include "tests/protocol/bytes.hpp"
#include "tests/protocol/setting.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

namespace {

constexpr std::uint64_t cookie = 0x0123456789abcdef;
constexpr std::uint16_t done = 1, more = 0;

// What a reply is written to: a heap block of exactly that size, with every byte set before.
struct head {
  byte_vector bytes = byte_vector(reply_header_max, std::byte{0xee});
  std::span<std::byte, reply_header_max> room() { return std::span(bytes).first<reply_header_max>(); }
  [[nodiscard]] byte_vector first(std::size_t length) const {
    return exact_copy(std::span(bytes).first(length));
  }
};

byte_vector simple(std::uint32_t result) {
  return packet().u32(0x67446698).u32(result).u64(cookie);
}

byte_vector chunk_of(reply_mode mode, std::uint16_t flags, std::uint16_t what, const request& asked,
                     const byte_vector& payload, std::uint64_t data = 0) {
  packet wire;
  if (mode == reply_mode::extended) {
    wire.u32(0x6e8a278c).u16(flags).u16(what).u64(cookie).u64(asked.offset).u64(payload.size() + data);
  } else {
    wire.u32(0x668e33ef).u16(flags).u16(what).u64(cookie).u32(payload.size() + data);
  }
  return wire.append(payload);
}

request ask(command what, std::uint64_t offset, std::uint64_t length, std::uint16_t flags = 0) {
  return {what, flags, cookie, offset, length};
}

byte_vector done_reply(reply_mode mode, const request& asked) {
  head to;
  return to.first(encode_done(to.room(), mode, asked));
}

byte_vector data_header(reply_mode mode, const request& asked, std::uint64_t offset, std::uint64_t length,
                        bool last) {
  head to;
  return to.first(encode_data_header(to.room(), mode, asked, offset, length, last));
}

byte_vector hole(reply_mode mode, const request& asked, std::uint64_t offset, std::uint64_t length,
                 bool last) {
  head to;
  return to.first(encode_hole(to.room(), mode, asked, offset, length, last));
}

// The three pieces of an error reply in their order, as a session sends them.
byte_vector error_of(reply_mode mode, const request& asked, error result, std::string_view text = {},
                     std::optional<std::uint64_t> failed_at = {}) {
  head to;
  const error_reply pieces = encode_error(to.room(), mode, asked, result, text, failed_at);
  packet wire;
  wire.append(to.first(pieces.header_length)).text(pieces.text);
  return wire.append(exact_copy(std::span(to.bytes).subspan(pieces.header_length, pieces.tail_length)));
}

std::uint32_t magic_of(const byte_vector& wire) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i)
    value = value << 8U | std::to_integer<std::uint32_t>(wire[static_cast<std::size_t>(i)]);
  return value;
}

}  // namespace

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

TEST_CASE("chunk_headers_round_trip_and_half_of_one_is_none") {
  for (const reply_mode mode : every::chunked_mode) {
    const bool extended = mode == reply_mode::extended;
    for (const chunk what : {chunk::none, chunk::offset_data, chunk::error_offset}) {
      const chunk_header sent{done, what, cookie, extended ? 77U : 0U, extended ? 1ULL << 40U : 1ULL << 31U};
      byte_vector wire(chunk_header_size(mode));
      encode_chunk_header(wire, mode, sent);
      const chunk_header decoded = decode_chunk_header(wire, mode).value();
      CHECK(decoded.flags == sent.flags);
      CHECK(decoded.what == sent.what);
      CHECK(decoded.cookie == sent.cookie);
      CHECK(decoded.offset == sent.offset);
      CHECK(decoded.length == sent.length);
      for (std::size_t length = 0; length < wire.size(); ++length)
        CHECK_FALSE(decode_chunk_header(exact_copy(std::span(wire).first(length)), mode));
      wire.front() ^= std::byte{0x80};
      CHECK_FALSE(decode_chunk_header(wire, mode));
    }
  }
  CHECK(chunk_header_size(reply_mode::structured) == 20);
  CHECK(chunk_header_size(reply_mode::extended) == 32);
}

TEST_CASE("rule 20: success_without_data_is_a_simple_reply_or_a_chunk_of_none") {
  for (const command what : {command::write, command::flush, command::trim, command::write_zeroes}) {
    const request asked = ask(what, 4096, 512);
    CHECK(done_reply(reply_mode::simple, asked) == simple(0));
    for (const reply_mode mode : every::chunked_mode)
      CHECK(done_reply(mode, asked) == chunk_of(mode, done, 0, asked, {}));
  }
}

TEST_CASE("rule 20: with_structured_replies_nothing_gets_a_simple_reply_errors_included") {
  constexpr std::uint32_t structured_magic = 0x668e33ef, extended_magic = 0x6e8a278c;
  for (const reply_mode mode : every::chunked_mode) {
    const std::uint32_t magic = mode == reply_mode::extended ? extended_magic : structured_magic;
    for (unsigned number = 0; number < 10; ++number) {
      const request asked = ask(static_cast<command>(number), 0, 512);
      CHECK(magic_of(done_reply(mode, asked)) == magic);
      CHECK(magic_of(error_of(mode, asked, error::einval)) == magic);
      CHECK(magic_of(error_of(mode, asked, error::eshutdown, "Gone.", 0)) == magic);
    }
    CHECK(magic_of(data_header(mode, ask(command::read, 0, 512), 0, 512, true)) == magic);
    CHECK(magic_of(data_header(mode, ask(command::read, 0, 0), 0, 0, true)) == magic);
    CHECK(magic_of(hole(mode, ask(command::read, 0, 512), 0, 512, true)) == magic);
  }
}

TEST_CASE("rule 20: in_extended_mode_every_reply_carries_the_offset_of_the_request") {
  constexpr auto mode = reply_mode::extended;
  const request asked = ask(command::read, 0x1122334455667788, 4096);
  for (const byte_vector& wire :
       {done_reply(mode, asked), data_header(mode, asked, asked.offset + 512, 512, false),
        hole(mode, asked, asked.offset + 1024, 512, false), error_of(mode, asked, error::eio),
        error_of(mode, asked, error::eio, "Bad.", asked.offset + 1)}) {
    CHECK(decode_chunk_header(wire, mode).value().offset == asked.offset);
  }
}

TEST_CASE("rule 21: done_is_set_when_it_is_said_and_not_before") {
  const request asked = ask(command::read, 4096, 4096);
  for (const reply_mode mode : every::chunked_mode) {
    const auto flags = [&](const byte_vector& wire) { return decode_chunk_header(wire, mode).value().flags; };
    CHECK(flags(data_header(mode, asked, 4096, 512, false)) == more);
    CHECK(flags(data_header(mode, asked, 4096, 512, true)) == done);
    CHECK(flags(hole(mode, asked, 4096, 512, false)) == more);
    CHECK(flags(hole(mode, asked, 4096, 512, true)) == done);
    CHECK(flags(done_reply(mode, asked)) == done);
    CHECK(flags(error_of(mode, asked, error::eio)) == done);
    CHECK(flags(error_of(mode, asked, error::eio, "At the start.", 4096)) == done);
  }
}

TEST_CASE("rule 22: data_is_announced_with_its_offset") {
  const request asked = ask(command::read, 4096, 8192);
  CHECK(data_header(reply_mode::simple, asked, 4096, 8192, true) == simple(0));
  for (const reply_mode mode : every::chunked_mode) {
    CHECK(data_header(mode, asked, 4096, 8192, true) ==
          chunk_of(mode, done, 1, asked, packet().u64(4096), 8192));
    CHECK(data_header(mode, asked, 4608, 1, false) == chunk_of(mode, more, 1, asked, packet().u64(4608), 1));
    CHECK(data_header(mode, asked, 12'287, 1, true) ==
          chunk_of(mode, done, 1, asked, packet().u64(12'287), 1));
  }
}

TEST_CASE("rule 22: no_data_has_no_chunk_of_data") {
  const request asked = ask(command::read, 4096, 0);
  CHECK(data_header(reply_mode::simple, asked, 4096, 0, true) == simple(0));
  for (const reply_mode mode : every::chunked_mode)
    CHECK(data_header(mode, asked, 4096, 0, true) == chunk_of(mode, done, 0, asked, {}));
}

TEST_CASE("rule 22: a_hole_is_12_bytes") {
  const request asked = ask(command::read, 4096, 1ULL << 33U);
  for (const reply_mode mode : every::chunked_mode) {
    for (const std::uint64_t length : {std::uint64_t{1}, std::uint64_t{512}, length_max})
      CHECK(hole(mode, asked, 8192, length, true) ==
            chunk_of(mode, done, 2, asked, packet().u64(8192).u32(length)));
  }
}

TEST_CASE("rule 22: errors_come_with_their_sentence") {
  const request asked = ask(command::write, 4096, 512);
  CHECK(error_of(reply_mode::simple, asked, error::enospc, "There is no space.") == simple(28));
  for (const reply_mode mode : every::chunked_mode) {
    CHECK(error_of(mode, asked, error::enospc) ==
          chunk_of(mode, done, 0x8001, asked, packet().u32(28).u16(0)));
    CHECK(error_of(mode, asked, error::enospc, "There is no space.") ==
          chunk_of(mode, done, 0x8001, asked, packet().u32(28).u16(18).text("There is no space.")));
  }
}

TEST_CASE("rule 22: an_offset_in_the_request_is_told_behind_the_sentence") {
  for (const command what : {command::read, command::write, command::trim, command::cache,
                             command::write_zeroes, command::block_status}) {
    const request asked = ask(what, 4096, 512);
    CHECK(error_of(reply_mode::simple, asked, error::eio, "Bad.", 4096) == simple(5));
    for (const reply_mode mode : every::chunked_mode) {
      for (const std::uint64_t at : {4096U, 4607U}) {
        CHECK(error_of(mode, asked, error::eio, "Bad.", at) ==
              chunk_of(mode, done, 0x8002, asked, packet().u32(5).u16(4).text("Bad.").u64(at)));
        CHECK(error_of(mode, asked, error::eio, {}, at) ==
              chunk_of(mode, done, 0x8002, asked, packet().u32(5).u16(0).u64(at)));
      }
    }
  }
}

TEST_CASE("rule 22: an_offset_outside_of_the_request_is_not_told") {
  for (const reply_mode mode : every::chunked_mode) {
    const auto without = [&](const request& asked) {
      return chunk_of(mode, done, 0x8001, asked, packet().u32(5).u16(0));
    };
    const request asked = ask(command::read, 4096, 512), nothing = ask(command::read, 4096, 0);
    for (const std::uint64_t at :
         {std::uint64_t{0}, std::uint64_t{4095}, std::uint64_t{4608}, ~std::uint64_t{0}})
      CHECK(error_of(mode, asked, error::eio, {}, at) == without(asked));
    CHECK(error_of(mode, nothing, error::eio, {}, 4096) == without(nothing));
    const request last = ask(command::read, ~std::uint64_t{0} - 1, 1);
    CHECK(error_of(mode, last, error::eio, {}, ~std::uint64_t{0}) == without(last));
    // Commands for which the specification does not have it.
    for (const command what : {command::flush, command::disc, command::resize, static_cast<command>(99)})
      CHECK(error_of(mode, ask(what, 4096, 512), error::eio, {}, 4096) == without(ask(what, 4096, 512)));
  }
  // The length is the payload's: what the request was about is not known.
  const request asked = ask(command::block_status, 4096, 12, command_flag::payload_len);
  CHECK(error_of(reply_mode::extended, asked, error::einval, {}, 4096) ==
        chunk_of(reply_mode::extended, done, 0x8001, asked, packet().u32(22).u16(0)));
}

TEST_CASE("with_extended_headers_a_failed_write_tells_its_offset_too") {
  const request asked = ask(command::write, 4096, 512, command_flag::payload_len);
  CHECK(error_of(reply_mode::extended, asked, error::eio, {}, 4100) ==
        chunk_of(reply_mode::extended, done, 0x8002, asked, packet().u32(5).u16(0).u64(4100)));
}

TEST_CASE("CVE-2020-10761: a_long_sentence_is_cut_between_characters_and_never_asserted_on") {
  const request asked = ask(command::read, 0, 512);
  for (const std::size_t length : {4095U, 4096U, 4097U, 5000U, 100'000U}) {
    const std::string plain(length, 'x'), accented = std::string(4095, 'x') + "\xc3\xa9" + plain;
    for (const reply_mode mode : every::chunked_mode) {
      head to;
      const error_reply sent = encode_error(to.room(), mode, asked, error::eio, plain, 0);
      CHECK(sent.text.size() == std::min<std::size_t>(length, 4096));
      CHECK(decode_chunk_header(to.bytes, mode).value().length == 6 + sent.text.size() + 8);
      const error_reply cut = encode_error(to.room(), mode, asked, error::eio, accented);
      CHECK(cut.text.size() == 4095);
      CHECK(is_well_formed(cut.text));
    }
  }
}

TEST_CASE("rule 19: the_cookie_is_copied_and_nothing_else") {
  for (const std::uint64_t each : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
    for (const reply_mode mode : every::chunked_mode)
      CHECK(decode_chunk_header(done_reply(mode, {command::flush, 0, each, 0, 0}), mode).value().cookie ==
            each);
  }
}

TEST_CASE("the_head_of_every_reply_fits_and_nothing_is_written_behind_it") {
  CHECK(reply_header_max == 46);
  const request asked = ask(command::read, 0, 512);
  for (const reply_mode mode : every::chunked_mode) {
    head to;
    const std::size_t used = encode_hole(to.room(), mode, asked, 0, 512, true);
    for (std::size_t i = used; i < reply_header_max; ++i) CHECK(to.bytes[i] == std::byte{0xee});
    const error_reply error = encode_error(to.room(), mode, asked, error::eio, "Bad.", 0);
    CHECK(error.header_length + error.tail_length <= reply_header_max);
  }
}
