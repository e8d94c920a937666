#include "protocol/requests.hpp"

#include <cerrno>
#include <initializer_list>

#include "tests/protocol/bytes.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

namespace {

constexpr std::uint64_t mebibyte = 1U << 20U;
constexpr std::uint64_t gibibyte = 1U << 30U;
constexpr std::uint64_t length_max = 0xffffffff;
constexpr std::uint16_t everything = transmission_flag::has_flags | transmission_flag::send_flush |
                                     transmission_flag::send_fua | transmission_flag::send_trim |
                                     transmission_flag::send_write_zeroes |
                                     transmission_flag::send_fast_zero | transmission_flag::send_cache;
constexpr std::initializer_list<command> ranged = {command::read, command::write, command::trim,
                                                   command::cache, command::write_zeroes};
constexpr std::initializer_list<command> changes = {command::write, command::trim, command::write_zeroes};

// An export and the terms of a client that chose it.
struct setting {
  explicit setting(std::uint64_t size = gibibyte, std::uint16_t flags = everything) {
    offered.size = size;
    offered.flags = flags;
    agreed.chosen = &offered;
  }
  setting(const setting&) = delete;

  [[nodiscard]] error check(command what, std::uint64_t offset, std::uint64_t length,
                            unsigned flags = 0) const {
    return validate({what, static_cast<std::uint16_t>(flags), 1, offset, length}, agreed);
  }

  export_info offered;
  terms agreed;
};

}  // namespace

TEST_CASE("requests_round_trip") {
  const request rows[] = {
      {command::read, 0, 0, 0, 0},
      {command::write, command_flag::fua, 0x0123456789abcdef, 4096, 512},
      {command::write_zeroes, 0xffff, ~std::uint64_t{0}, ~std::uint64_t{0}, length_max},
      {static_cast<command>(0xffff), 0x8000, 1, 2, 3},
  };
  for (const request& sent : rows) {
    byte_vector wire(request_size);
    encode_request(std::span(wire).first<request_size>(), sent);
    CHECK(wire == byte_vector(packet()
                                  .u32(0x25609513)
                                  .u16(sent.flags)
                                  .u16(static_cast<std::uint16_t>(sent.what))
                                  .u64(sent.cookie)
                                  .u64(sent.offset)
                                  .u32(sent.length)));
    const request decoded = decode_request(std::span<const std::byte>(wire).first<request_size>()).value();
    CHECK(decoded.what == sent.what);
    CHECK(decoded.flags == sent.flags);
    CHECK(decoded.cookie == sent.cookie);
    CHECK(decoded.offset == sent.offset);
    CHECK(decoded.length == sent.length);
  }
}

TEST_CASE("a_request_with_another_magic_is_none") {
  for (const std::uint32_t magic : {0U, 0x12560953U, 0x25609512U, 0x25609514U, 0x67446698U, 0x21e41c71U}) {
    const byte_vector wire = packet().u32(magic).zeroes(request_size - 4);
    CHECK_FALSE(decode_request(std::span(wire).first<request_size>()));
  }
}

TEST_CASE("rule 13: requests_up_to_the_last_byte_are_served") {
  const setting with(10'000);
  for (const command what : ranged) {
    CAPTURE(what);
    CHECK(with.check(what, 0, 10'000) == error::none);
    CHECK(with.check(what, 9'999, 1) == error::none);
    CHECK(with.check(what, 10'000, 0) == error::none);
  }
}

TEST_CASE("rule 13: write_past_end_is_rejected_with_enospc") {
  const setting with(10'000);
  for (const command what : {command::write, command::write_zeroes}) {
    CAPTURE(what);
    CHECK(with.check(what, 0, 10'001) == error::enospc);
    CHECK(with.check(what, 9'999, 2) == error::enospc);
    CHECK(with.check(what, 10'000, 1) == error::enospc);
    CHECK(with.check(what, 10'001, 0) == error::enospc);
  }
}

TEST_CASE("rule 13: read_trim_and_cache_past_end_are_rejected_with_einval") {
  const setting with(10'000);
  for (const command what : {command::read, command::trim, command::cache}) {
    CAPTURE(what);
    CHECK(with.check(what, 0, 10'001) == error::einval);
    CHECK(with.check(what, 9'999, 2) == error::einval);
    CHECK(with.check(what, 10'001, 0) == error::einval);
  }
}

TEST_CASE("rule 13: offset_plus_length_never_wraps") {
  const setting with(10'000);
  for (const std::uint64_t offset : {~std::uint64_t{0}, ~std::uint64_t{0} - 4095, std::uint64_t{1} << 63U}) {
    CHECK(with.check(command::write, offset, 4096) == error::enospc);
    CHECK(with.check(command::read, offset, 4096) == error::einval);
    CHECK(with.check(command::write_zeroes, offset, ~std::uint64_t{0}) == error::enospc);
  }
  const setting huge(~std::uint64_t{0});
  CHECK(huge.check(command::read, ~std::uint64_t{0} - 1, 1) == error::none);
  CHECK(huge.check(command::read, ~std::uint64_t{0} - 1, 2) == error::einval);
}

TEST_CASE("rule 13: changes_to_a_read_only_export_are_rejected_with_eperm") {
  const setting with(10'000, everything | transmission_flag::read_only);
  const setting bare(10'000, transmission_flag::has_flags | transmission_flag::read_only);
  for (const command what : changes) {
    CAPTURE(what);
    CHECK(with.check(what, 0, 512) == error::eperm);
    CHECK(with.check(what, 20'000, 512) == error::eperm);
    CHECK(bare.check(what, 0, 512) == error::eperm);
  }
  CHECK(with.check(command::read, 0, 512) == error::none);
  CHECK(with.check(command::flush, 0, 0) == error::none);
}

TEST_CASE("rule 14: a_refused_write_still_announces_its_payload") {
  const request refused{command::write, 0, 1, 0, 33 * mebibyte};
  const setting with;
  CHECK(validate(refused, with.agreed) == error::einval);
  CHECK(payload_length(refused) == 33 * mebibyte);
  CHECK_FALSE(payload_is_past_all_limits(refused));
}

TEST_CASE("rule 14: only_write_carries_a_payload") {
  for (unsigned number = 0; number < 0x10000; ++number) {
    const auto what = static_cast<command>(number);
    const request asked{what, 0, 0, 0, 4096};
    if (payload_length(asked) != (what == command::write ? 4096U : 0U)) FAIL("command " << number);
  }
}

TEST_CASE("rule 14: payloads_are_drained_up_to_64_mib_and_not_a_byte_more") {
  CHECK_FALSE(payload_is_past_all_limits({command::write, 0, 0, 0, payload_drain_max}));
  CHECK(payload_is_past_all_limits({command::write, 0, 0, 0, payload_drain_max + 1}));
  CHECK(payload_is_past_all_limits({command::write, 0, 0, 0, length_max}));
  CHECK_FALSE(payload_is_past_all_limits({command::read, 0, 0, 0, length_max}));
}

TEST_CASE("the_longest_payload_is_32_mib_in_both_directions") {
  const setting with;
  for (const command what : {command::read, command::write}) {
    CHECK(with.check(what, 0, request_payload_max) == error::none);
    CHECK(with.check(what, 0, request_payload_max + 1) == error::einval);
  }
}

TEST_CASE("the_advertised_payload_maximum_binds_only_those_who_asked") {
  setting with;
  with.offered.block_size_max = mebibyte;
  CHECK(with.check(command::read, 0, mebibyte + 1) == error::none);
  with.agreed.block_sizes_requested = true;
  CHECK(with.check(command::read, 0, mebibyte) == error::none);
  CHECK(with.check(command::read, 0, mebibyte + 1) == error::einval);
  CHECK(with.check(command::write, 0, mebibyte + 1) == error::einval);
  CHECK(with.check(command::write_zeroes, 0, mebibyte + 1) == error::none);
  with.offered.block_size_max = 0xffffffff;
  CHECK(with.check(command::read, 0, request_payload_max + 1) == error::einval);
}

TEST_CASE("rule 15: requests_of_no_length_are_valid") {
  const setting with;
  for (const command what : ranged) CHECK(with.check(what, 4096, 0) == error::none);
}

TEST_CASE("rule 16: fua_is_accepted_on_every_command_once_it_is_advertised") {
  const setting with;
  for (const command what : ranged) CHECK(with.check(what, 0, 512, command_flag::fua) == error::none);
  CHECK(with.check(command::flush, 0, 0, command_flag::fua) == error::none);
  CHECK(with.check(command::disc, 0, 0, command_flag::fua) == error::none);
}

TEST_CASE("rule 16: fua_that_was_not_advertised_is_rejected_with_einval") {
  const setting with(gibibyte, everything & ~transmission_flag::send_fua);
  for (const command what : ranged) CHECK(with.check(what, 0, 512, command_flag::fua) == error::einval);
  CHECK(with.check(command::flush, 0, 0, command_flag::fua) == error::einval);
}

TEST_CASE("rule 16: every_other_flag_is_accepted_exactly_where_it_belongs") {
  const setting with;
  for (const command what : {command::read, command::write, command::flush, command::trim, command::cache,
                             command::write_zeroes}) {
    for (unsigned bit = 1; bit < 16; ++bit) {
      const unsigned flag = 1U << bit;
      const bool belongs =
          what == command::write_zeroes && (flag == command_flag::no_hole || flag == command_flag::fast_zero);
      CAPTURE(what, flag);
      CHECK(with.check(what, 0, 512, flag) == (belongs ? error::none : error::einval));
      CHECK(with.check(what, 0, 512, flag | command_flag::fua) == (belongs ? error::none : error::einval));
    }
  }
}

TEST_CASE("rule 16: fast_zero_that_was_not_advertised_is_rejected_with_einval") {
  const setting with(gibibyte, everything & ~transmission_flag::send_fast_zero);
  CHECK(with.check(command::write_zeroes, 0, 512, command_flag::fast_zero) == error::einval);
  CHECK(with.check(command::write_zeroes, 0, 512, command_flag::no_hole) == error::none);
}

TEST_CASE("rule 16: df_is_rejected_even_where_the_export_would_offer_it") {
  const setting with(gibibyte, everything | transmission_flag::send_df);
  CHECK(with.check(command::read, 0, 512, command_flag::df) == error::einval);
}

TEST_CASE("commands_that_were_not_advertised_are_rejected_with_einval") {
  const setting with(gibibyte, transmission_flag::has_flags);
  for (const command what : {command::flush, command::trim, command::cache, command::write_zeroes}) {
    CAPTURE(what);
    CHECK(with.check(what, 0, 512) == error::einval);
  }
  CHECK(with.check(command::read, 0, 512) == error::none);
  CHECK(with.check(command::write, 0, 512) == error::none);
}

TEST_CASE("commands_that_are_unknown_or_not_served_are_rejected_with_einval") {
  const setting with;
  const setting read_only(gibibyte, everything | transmission_flag::read_only);
  for (const unsigned number : {7U, 8U, 9U, 255U, 0xffffU}) {
    CAPTURE(number);
    CHECK(with.check(static_cast<command>(number), 0, 512) == error::einval);
    CHECK(with.check(static_cast<command>(number), 0, 512, command_flag::fua) == error::einval);
    CHECK(read_only.check(static_cast<command>(number), 0, 512) == error::einval);
  }
}

TEST_CASE("flush_with_a_range_is_served_as_if_it_had_none") {
  const setting with(10'000);
  CHECK(with.check(command::flush, 20'000, length_max) == error::none);
}

TEST_CASE("rule 17: requests_without_a_payload_may_be_4_gib_long") {
  const setting with(8 * gibibyte);
  for (const command what : {command::trim, command::cache, command::write_zeroes}) {
    CAPTURE(what);
    CHECK(with.check(what, 4097, length_max) == error::none);
    CHECK(payload_length({what, 0, 0, 4097, length_max}) == 0);
  }
}

TEST_CASE("rule 18: any_offset_and_length_work_when_block_sizes_were_not_asked_for") {
  setting with;
  with.offered.block_size_min = 4096;
  for (const command what : ranged) CHECK(with.check(what, 1, 3) == error::none);
}

TEST_CASE("rule 18: below_the_minimum_is_rejected_with_einval_when_block_sizes_were_asked_for") {
  setting with;
  with.agreed.block_sizes_requested = true;
  for (const command what : ranged) CHECK(with.check(what, 1, 3) == error::none);
  with.offered.block_size_min = 512;
  for (const command what : ranged) {
    CAPTURE(what);
    CHECK(with.check(what, 512, 1024) == error::none);
    CHECK(with.check(what, 511, 1024) == error::einval);
    CHECK(with.check(what, 512, 1023) == error::einval);
    CHECK(with.check(what, 512, 0) == error::none);
  }
  CHECK(with.check(command::flush, 1, 3) == error::none);
}

TEST_CASE("rule 19: the_cookie_decides_nothing") {
  const setting with;
  for (const std::uint64_t cookie : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
    CHECK(validate({command::read, 0, cookie, 0, 512}, with.agreed) == error::none);
    CHECK(validate({command::read, 0, cookie, 0, 512}, with.agreed) == error::none);
  }
}

TEST_CASE("disc_is_valid_whatever_it_carries") {
  const setting with(0, transmission_flag::has_flags | transmission_flag::read_only);
  CHECK(with.check(command::disc, ~std::uint64_t{0}, length_max, 0xffff) == error::none);
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

TEST_CASE("CVE-2005-3534: a_request_longer_than_any_buffer_is_refused") {
  const setting with(8 * gibibyte);
  CHECK(with.check(command::read, 0, length_max) == error::einval);
  CHECK(with.check(command::write, 0, length_max) == error::einval);
  CHECK(payload_is_past_all_limits({command::write, 0, 0, 0, length_max}));
}

TEST_CASE("CVE-2025-47711, CVE-2025-47712: block_status_of_4_gib_is_an_answer_not_an_assertion") {
  const setting with(8 * gibibyte);
  CHECK(with.check(command::block_status, 0, length_max) == error::einval);
  CHECK(with.check(command::block_status, length_max, length_max, command_flag::req_one) == error::einval);
}

TEST_CASE("defect: zeroing_more_than_64_mib_in_one_request_is_served_whole") {
  const setting with(8 * gibibyte);
  CHECK(with.check(command::write_zeroes, 0, 64 * mebibyte + 1) == error::none);
}
