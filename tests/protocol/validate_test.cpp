// What validate() lets through and what it objects to, rule by rule and in every mode.
#include <string_view>

#include "protocol/requests.hpp"
#include "tests/protocol/setting.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

namespace {

constexpr std::initializer_list<command> changes = {command::write, command::trim, command::write_zeroes};

error too_long_to_read(reply_mode mode) {
  return mode == reply_mode::simple ? error::einval : error::eoverflow;
}

}  // namespace

TEST_CASE("rule 13: requests_up_to_the_last_byte_are_served") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 10'000);
    for (const command what : with.ranged()) {
      CAPTURE(mode, what);
      CHECK(with.check(what, 0, 10'000) == error::none);
      CHECK(with.check(what, 9'999, 1) == error::none);
    }
  }
}

TEST_CASE("rule 13: write_past_end_is_rejected_with_enospc") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 10'000);
    for (const command what : {command::write, command::write_zeroes}) {
      CAPTURE(mode, what);
      CHECK(with.check(what, 0, 10'001) == error::enospc);
      CHECK(with.check(what, 9'999, 2) == error::enospc);
      CHECK(with.check(what, 10'000, 1) == error::enospc);
      CHECK(with.check(what, 10'001, 0) == error::enospc);
      CHECK(with.check(what, 0, request_payload_max + 1) == error::enospc);
    }
  }
}

TEST_CASE("rule 13: read_trim_cache_and_block_status_past_end_are_rejected_with_einval") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 10'000);
    for (const command what : with.ranged()) {
      if (what == command::write || what == command::write_zeroes) continue;
      CAPTURE(mode, what);
      CHECK(with.check(what, 0, 10'001) == error::einval);
      CHECK(with.check(what, 9'999, 2) == error::einval);
      CHECK(with.check(what, 10'001, 0) == error::einval);
      CHECK(with.check(what, 0, request_payload_max + 1) == error::einval);
    }
  }
}

TEST_CASE("rule 13: offset_plus_length_never_wraps") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 10'000);
    for (const std::uint64_t offset :
         {~std::uint64_t{0}, ~std::uint64_t{0} - 4095, std::uint64_t{1} << 63U}) {
      CHECK(with.check(command::write, offset, 4096) == error::enospc);
      CHECK(with.check(command::read, offset, 4096) == error::einval);
      CHECK(with.check(command::write_zeroes, offset, ~std::uint64_t{0}) == error::enospc);
      CHECK(with.check(command::trim, offset, std::uint64_t{1} << 63U) == error::einval);
      CHECK(with.check(command::block_status, offset, ~std::uint64_t{0}) == error::einval);
    }
    const setting huge(mode, ~std::uint64_t{0});
    CHECK(huge.check(command::read, ~std::uint64_t{0} - 1, 1) == error::none);
    CHECK(huge.check(command::read, ~std::uint64_t{0} - 1, 2) == error::einval);
  }
}

TEST_CASE("rule 13: changes_to_a_read_only_export_are_rejected_with_eperm") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 10'000, every::export_flag | transmission_flag::read_only);
    const setting bare(mode, 10'000, transmission_flag::has_flags | transmission_flag::read_only);
    for (const command what : changes) {
      CAPTURE(mode, what);
      CHECK(with.check(what, 0, 512) == error::eperm);
      CHECK(with.check(what, 20'000, 512) == error::eperm);
      CHECK(bare.check(what, 0, 512) == error::eperm);
    }
    CHECK(with.check(command::read, 0, 512) == error::none);
    CHECK(with.check(command::flush, 0, 0) == error::none);
  }
}

TEST_CASE("the_longest_payload_is_32_mib_in_both_directions") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode);
    for (const command what : {command::read, command::write})
      CHECK(with.check(what, 0, request_payload_max) == error::none);
    CHECK(with.check(command::write, 0, request_payload_max + 1) == error::einval);
    CHECK(with.check(command::read, 0, request_payload_max + 1) == too_long_to_read(mode));
  }
}

TEST_CASE("rule 26: eoverflow_is_for_reads_of_clients_that_know_df") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 8 * gibibyte);
    for (const command what : with.ranged()) {
      CAPTURE(mode, what);
      const bool overflows = what == command::read && mode != reply_mode::simple;
      CHECK((with.check(what, 0, length_max) == error::eoverflow) == overflows);
    }
  }
}

TEST_CASE("the_advertised_payload_maximum_binds_only_those_who_asked") {
  for (const reply_mode mode : every::mode) {
    setting with(mode);
    with.offered.block_size_max = mebibyte;
    CHECK(with.check(command::read, 0, mebibyte + 1) == error::none);
    with.agreed.block_sizes_requested = true;
    CHECK(with.check(command::read, 0, mebibyte) == error::none);
    CHECK(with.check(command::read, 0, mebibyte + 1) == too_long_to_read(mode));
    CHECK(with.check(command::write, 0, mebibyte + 1) == error::einval);
    CHECK(with.check(command::write_zeroes, 0, mebibyte + 1) == error::none);
    with.offered.block_size_max = 0xffffffff;
    CHECK(with.check(command::read, 0, request_payload_max + 1) == too_long_to_read(mode));
  }
}

TEST_CASE("rule 15: requests_of_no_length_are_valid_where_they_have_an_answer") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode);
    for (const command what : with.ranged()) {
      // The status of nothing would be an extent of no length, or one that is longer than REQ_ONE allows.
      const error expected = what == command::block_status ? error::einval : error::none;
      CHECK(with.check(what, 4096, 0) == expected);
      CHECK(with.check(what, gibibyte, 0) == expected);
    }
  }
}

TEST_CASE("rule 16: fua_is_accepted_on_every_command_once_it_is_advertised") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode);
    for (const command what : with.ranged())
      CHECK(with.check(what, 0, 512, command_flag::fua) == error::none);
    CHECK(with.check(command::flush, 0, 0, command_flag::fua) == error::none);
    CHECK(with.check(command::disc, 0, 0, command_flag::fua) == error::none);
  }
}

TEST_CASE("rule 16: fua_that_was_not_advertised_is_rejected_with_einval") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, gibibyte, every::export_flag & ~transmission_flag::send_fua);
    for (const command what : with.ranged())
      CHECK(with.check(what, 0, 512, command_flag::fua) == error::einval);
    CHECK(with.check(command::flush, 0, 0, command_flag::fua) == error::einval);
  }
}

TEST_CASE("rule 16: every_other_flag_is_accepted_exactly_where_it_belongs") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode);
    const bool chunks = mode != reply_mode::simple;
    const auto belongs = [&](command what, unsigned flag) {
      switch (flag) {
        case command_flag::no_hole:
        case command_flag::fast_zero:
          return what == command::write_zeroes;
        case command_flag::df:
          return what == command::read && chunks;
        case command_flag::req_one:
          return what == command::block_status && chunks;
        case command_flag::payload_len:
          return mode == reply_mode::extended && (what == command::write || what == command::block_status);
        default:
          return false;
      }
    };
    for (unsigned number = 0; number < 10; ++number) {
      const auto what = static_cast<command>(number);
      if (what == command::disc) continue;
      for (unsigned bit = 1; bit < 16; ++bit) {
        const unsigned flag = 1U << bit;
        // Long enough to be what a BLOCK_STATUS with a payload announces.
        const error expected = belongs(what, flag) ? error::none : error::einval;
        CAPTURE(mode, what, flag);
        CHECK(with.check(what, 0, block_status_payload_size, flag) == expected);
        CHECK(with.check(what, 0, block_status_payload_size, flag | command_flag::fua) == expected);
      }
    }
  }
}

TEST_CASE("rule 16: fast_zero_that_was_not_advertised_is_rejected_with_einval") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, gibibyte, every::export_flag & ~transmission_flag::send_fast_zero);
    CHECK(with.check(command::write_zeroes, 0, 512, command_flag::fast_zero) == error::einval);
    CHECK(with.check(command::write_zeroes, 0, 512, command_flag::no_hole) == error::none);
  }
}

TEST_CASE("rule 16: df_is_rejected_in_simple_mode_even_where_the_export_would_offer_it") {
  const setting with(reply_mode::simple, gibibyte, every::export_flag | transmission_flag::send_df);
  CHECK(with.check(command::read, 0, 512, command_flag::df) == error::einval);
}

TEST_CASE("rule 23: an_unfragmented_read_is_served_up_to_the_longest_payload") {
  for (const reply_mode mode : every::chunked_mode) {
    const setting with(mode);
    CHECK(with.check(command::read, 0, request_payload_max, command_flag::df) == error::none);
    CHECK(with.check(command::read, 0, request_payload_max + 1, command_flag::df) == error::eoverflow);
  }
}

// QEMU's client, up to 10.0 at least, leaves the flag out.
TEST_CASE("with_extended_headers_a_write_is_one_without_the_flag_payload_len_too") {
  const setting with(reply_mode::extended);
  for (const std::uint64_t length : {0U, 1U, 4096U}) {
    const request bare{command::write, 0, 1, 0, length};
    CHECK(validate(bare, with.agreed) == error::none);
    CHECK(payload_length(bare, reply_mode::extended) == length);
    CHECK(with.check(command::write, 0, length) == error::none);
  }
}

TEST_CASE("rule 12: block_status_needs_a_context_and_chunks") {
  for (const reply_mode mode : every::mode) {
    setting with(mode);
    with.agreed.allocation_selected = false;
    CHECK(with.check(command::block_status, 0, 512) == error::einval);
    CHECK(with.check(command::block_status, 0, 12, command_flag::payload_len) == error::einval);
    with.agreed.allocation_selected = true;
    CHECK(with.check(command::block_status, 0, 512) ==
          (mode == reply_mode::simple ? error::einval : error::none));
  }
}

TEST_CASE("commands_that_were_not_advertised_are_rejected_with_einval") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, gibibyte, transmission_flag::has_flags);
    for (const command what : {command::flush, command::trim, command::cache, command::write_zeroes}) {
      CAPTURE(mode, what);
      CHECK(with.check(what, 0, 512) == error::einval);
    }
    CHECK(with.check(command::read, 0, 512) == error::none);
    CHECK(with.check(command::write, 0, 512) == error::none);
  }
}

TEST_CASE("commands_that_are_unknown_or_not_served_are_rejected_with_einval") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode);
    const setting read_only(mode, gibibyte, every::export_flag | transmission_flag::read_only);
    for (const unsigned number : {8U, 9U, 255U, 0xffffU}) {
      CAPTURE(mode, number);
      CHECK(with.check(static_cast<command>(number), 0, 512) == error::einval);
      CHECK(with.check(static_cast<command>(number), 0, 512, command_flag::fua) == error::einval);
      CHECK(read_only.check(static_cast<command>(number), 0, 512) == error::einval);
    }
  }
}

TEST_CASE("flush_with_a_range_is_served_as_if_it_had_none") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 10'000);
    CHECK(with.check(command::flush, 20'000, length_max) == error::none);
  }
}

TEST_CASE("rule 17: requests_without_a_payload_may_be_4_gib_long") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 8 * gibibyte);
    for (const command what : with.ranged()) {
      if (what == command::read || what == command::write) continue;
      CAPTURE(mode, what);
      CHECK(with.check(what, 4097, length_max) == error::none);
      CHECK(payload_length(with.ask(what, 4097, length_max), mode) == 0);
    }
  }
}

TEST_CASE("rule 17: with_extended_headers_they_may_be_2_to_the_63_long") {
  constexpr std::uint64_t longest = std::uint64_t{1} << 63U;
  const setting with(reply_mode::extended, ~std::uint64_t{0});
  const setting exact(reply_mode::extended, longest);
  for (const command what : {command::trim, command::cache, command::write_zeroes, command::block_status}) {
    CAPTURE(what);
    CHECK(with.check(what, 4097, longest) == error::none);
    CHECK(with.check(what, 1, ~std::uint64_t{0} - 1) == error::none);
    CHECK(exact.check(what, 0, longest) == error::none);
    CHECK(exact.check(what, 0, longest + 1) != error::none);
    CHECK(exact.check(what, 1, longest) != error::none);
    CHECK(payload_length(with.ask(what, 0, longest), reply_mode::extended) == 0);
  }
}

TEST_CASE("rule 18: any_offset_and_length_work_when_block_sizes_were_not_asked_for") {
  for (const reply_mode mode : every::mode) {
    setting with(mode);
    with.offered.block_size_min = 4096;
    for (const command what : with.ranged()) CHECK(with.check(what, 1, 3) == error::none);
  }
}

TEST_CASE("rule 18: below_the_minimum_is_rejected_with_einval_when_block_sizes_were_asked_for") {
  for (const reply_mode mode : every::mode) {
    setting with(mode);
    with.agreed.block_sizes_requested = true;
    for (const command what : with.ranged()) CHECK(with.check(what, 1, 3) == error::none);
    with.offered.block_size_min = 512;
    for (const command what : with.ranged()) {
      CAPTURE(mode, what);
      CHECK(with.check(what, 512, 1024) == error::none);
      CHECK(with.check(what, 511, 1024) == error::einval);
      CHECK(with.check(what, 512, 1023) == error::einval);
    }
    CHECK(with.check(command::flush, 1, 3) == error::none);
  }
}

TEST_CASE("rule 19: the_cookie_decides_nothing") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode);
    for (const std::uint64_t cookie : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
      CHECK(validate({command::read, 0, cookie, 0, 512}, with.agreed) == error::none);
      CHECK(validate({command::read, 0, cookie, 0, 512}, with.agreed) == error::none);
    }
  }
}

TEST_CASE("disc_is_valid_whatever_it_carries") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 0, transmission_flag::has_flags | transmission_flag::read_only);
    CHECK(with.check(command::disc, ~std::uint64_t{0}, length_max, 0xffff) == error::none);
  }
}

TEST_CASE("CVE-2005-3534: a_request_longer_than_any_buffer_is_refused") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 8 * gibibyte);
    CHECK(with.check(command::read, 0, length_max) == too_long_to_read(mode));
    CHECK(with.check(command::write, 0, length_max) == error::einval);
    CHECK(payload_is_past_all_limits(with.ask(command::write, 0, length_max), mode));
  }
}

TEST_CASE("defect: an_unadvertised_fast_zero_is_an_error_and_never_an_assertion") {
  for (const reply_mode mode : every::mode) {
    const setting bare(mode, gibibyte, transmission_flag::has_flags);
    for (unsigned number = 0; number < 16; ++number) {
      if (static_cast<command>(number) == command::disc) continue;
      CHECK(bare.check(static_cast<command>(number), 0, 512, command_flag::fast_zero) == error::einval);
    }
  }
}

TEST_CASE("defect: zeroing_more_than_64_mib_in_one_request_is_served_whole") {
  for (const reply_mode mode : every::mode) {
    const setting with(mode, 8 * gibibyte);
    CHECK(with.check(command::write_zeroes, 0, 64 * mebibyte + 1) == error::none);
  }
}
