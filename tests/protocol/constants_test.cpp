#include "protocol/constants.hpp"

#include <string_view>

#include "tests/support/catch.hpp"

using namespace aionbd::protocol;

namespace {

// Every value of the range has a name, no two share one, and the next number has none.
template <class Enum>
void check_names(std::uint32_t first, std::uint32_t last) {
  for (std::uint32_t value = first; value <= last; ++value) {
    CAPTURE(value);
    CHECK(to_string(static_cast<Enum>(value)) != "unknown");
    for (std::uint32_t other = first; other < value; ++other) {
      CHECK(to_string(static_cast<Enum>(value)) != to_string(static_cast<Enum>(other)));
    }
  }
  CHECK(to_string(static_cast<Enum>(last + 1)) == "unknown");
}

}  // namespace

TEST_CASE("every_value_has_a_name_of_its_own_and_other_numbers_are_unknown") {
  check_names<option>(1, 11);
  check_names<option_reply>(1, 4);
  check_names<option_reply>(0x80000001, 0x8000000a);
  check_names<info>(0, 3);
  check_names<command>(0, 8);
  check_names<chunk>(0, 2);
  check_names<chunk>(5, 6);
  check_names<chunk>(0x8001, 0x8002);
  for (const std::uint32_t value : {0U, 1U, 5U, 12U, 22U, 28U, 75U, 95U, 108U}) {
    CHECK(to_string(static_cast<error>(value)) != "unknown");
  }
  CHECK(to_string(static_cast<error>(2)) == "unknown");
}

TEST_CASE("names_are_the_words_of_the_specification") {
  CHECK(to_string(option::list_meta_context) == "LIST_META_CONTEXT");
  CHECK(to_string(option_reply::err_tls_reqd) == "ERR_TLS_REQD");
  CHECK(to_string(info::export_) == "EXPORT");
  CHECK(to_string(command::write_zeroes) == "WRITE_ZEROES");
  CHECK(to_string(chunk::block_status_ext) == "BLOCK_STATUS_EXT");
  CHECK(to_string(error::eoverflow) == "EOVERFLOW");
}
