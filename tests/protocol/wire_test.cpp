#include "protocol/wire.hpp"

#include "tests/protocol/bytes.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

TEST_CASE("numbers_are_big_endian_in_both_directions") {
  const byte_vector expected =
      packet().u8(0xfe).u16(0x0102).u32(0x03040506).u64(0x0708090a0b0c0d0e).text("xy");
  byte_vector written(expected.size());
  writer out(written);
  out.number(std::uint8_t{0xfe}).number(std::uint16_t{0x0102}).number(std::uint32_t{0x03040506});
  out.number(std::uint64_t{0x0708090a0b0c0d0e}).text("xy");
  CHECK(out.remaining() == 0);
  CHECK(written == expected);

  reader in(written);
  CHECK(in.number<std::uint8_t>() == 0xfe);
  CHECK(in.number<std::uint16_t>() == 0x0102);
  CHECK(in.number<std::uint32_t>() == 0x03040506);
  CHECK(in.number<std::uint64_t>() == 0x0708090a0b0c0d0e);
  CHECK(in.remaining() == 2);
  CHECK(in.text(2) == "xy");
  CHECK(in.ok());
}

TEST_CASE("extreme_numbers_survive_the_wire") {
  for (const std::uint64_t value : {std::uint64_t{0}, std::uint64_t{1} << 63U, ~std::uint64_t{0}}) {
    byte_vector written(8);
    writer(written).number(value);
    CHECK(written == byte_vector(packet().u64(value)));
    CHECK(reader(written).number<std::uint64_t>() == value);
  }
}

TEST_CASE("reading_past_the_end_yields_zeroes_and_is_remembered") {
  const byte_vector three = exact_copy(byte_vector(packet().u8(1).u8(2).u8(3)));
  reader in(three);
  CHECK(in.number<std::uint32_t>() == 0);
  CHECK_FALSE(in.ok());
  CHECK(in.remaining() == 0);
  CHECK(in.number<std::uint8_t>() == 0);

  reader text(three);
  CHECK(text.text(4).empty());
  CHECK_FALSE(text.ok());
}

TEST_CASE("bytes_above_127_are_text_like_any_other") {
  const byte_vector bytes = packet().u8(0xc3).u8(0xa9);
  reader in(bytes);
  const std::string text = in.text(2);
  CHECK(text == "\xc3\xa9");
  byte_vector written(2);
  writer(written).text(text);
  CHECK(written == bytes);
}
