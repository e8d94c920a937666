#include "protocol/terms.hpp"

#include "tests/support/catch.hpp"

using namespace aionbd::protocol;

TEST_CASE("has_flags_is_always_offered") {
  export_info bare;
  bare.flags = 0;
  CHECK(offered_flags(bare, {}) == transmission_flag::has_flags);
}

TEST_CASE("flags_that_these_terms_cannot_keep_are_left_out") {
  export_info offered;
  offered.flags = 0xffff;
  const std::uint16_t left_out =
      transmission_flag::send_df | transmission_flag::block_status_payload | transmission_flag::send_resize;
  CHECK(offered_flags(offered, {}) == (0xffff & ~left_out));
}

TEST_CASE("df_comes_with_chunks_and_the_payload_of_block_status_with_a_context_and_extended_headers") {
  struct row {
    reply_mode replies;
    bool allocation_selected;
    unsigned expected;
  };
  constexpr unsigned df = transmission_flag::send_df;
  for (const row& each : {row{reply_mode::simple, false, 0}, row{reply_mode::simple, true, 0},
                          row{reply_mode::structured, false, df}, row{reply_mode::structured, true, df},
                          row{reply_mode::extended, false, df},
                          row{reply_mode::extended, true, df | transmission_flag::block_status_payload}}) {
    terms agreed;
    agreed.replies = each.replies;
    agreed.allocation_selected = each.allocation_selected;
    CHECK(offered_flags({}, agreed) == (transmission_flag::has_flags | each.expected));
  }
}

TEST_CASE("fast_zero_is_not_offered_without_write_zeroes") {
  export_info offered;
  offered.flags = transmission_flag::has_flags | transmission_flag::send_fast_zero;
  CHECK(offered_flags(offered, {}) == transmission_flag::has_flags);
}

TEST_CASE("other_flags_are_the_exports_own") {
  export_info offered;
  offered.flags =
      transmission_flag::has_flags | transmission_flag::rotational | transmission_flag::can_multi_conn;
  CHECK(offered_flags(offered, {}) == offered.flags);
}
