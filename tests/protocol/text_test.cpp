#include "protocol/text.hpp"

#include <string>

#include "tests/support/catch.hpp"

using namespace aionbd::protocol;
using namespace std::string_literals;

TEST_CASE("rule 3: strings_are_utf_8_without_nul") {
  for (const std::string& good :
       {""s, "disk"s, "\x7f"s, "\xc2\x80"s, "\xdf\xbf"s, "\xe0\xa0\x80"s, "\xed\x9f\xbf"s, "\xee\x80\x80"s,
        "\xef\xbf\xbf"s, "\xf0\x90\x80\x80"s, "\xf4\x8f\xbf\xbf"s,
        "Stra\xc3\x9f"
        "e \xf0\x9f\x92\xbe"s}) {
    CAPTURE(good);
    CHECK(is_well_formed(good));
  }
  for (const std::string& bad :
       {"\0"s, "a\0b"s, "\x80"s, "\xbf"s, "\xc3"s, "\xc3("s, "\xc0\x80"s, "\xc1\xbf"s, "\xe0\x9f\xbf"s,
        "\xe2\x82"s, "\xe2\x82("s, "\xed\xa0\x80"s, "\xed\xbf\xbf"s, "\xf0\x8f\xbf\xbf"s, "\xf4\x90\x80\x80"s,
        "\xf0\x9f\x92"s, "\xf8\x88\x80\x80\x80"s, "\xff"s}) {
    CAPTURE(bad);
    CHECK_FALSE(is_well_formed(bad));
  }
}

TEST_CASE("rule 3: a_string_of_4096_bytes_is_well_formed_and_4097_is_not") {
  CHECK(is_well_formed(std::string(4096, 'x')));
  CHECK_FALSE(is_well_formed(std::string(4097, 'x')));
}

TEST_CASE("texts_are_clipped_between_characters") {
  CHECK(clipped("disk", 4) == "disk");
  CHECK(clipped("disks", 4) == "disk");
  CHECK(clipped("abc\xc3\xa9", 4) == "abc");
  CHECK(clipped("abc\xc3\xa9", 5) == "abc\xc3\xa9");
  CHECK(clipped("\xf0\x9f\x92\xbe", 3).empty());
  CHECK(clipped("disk", 0).empty());
}
