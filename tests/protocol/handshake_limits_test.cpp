// Every limit of the handshake, at the limit and one past it.
#include <string>
#include <vector>

#include "protocol/handshake.hpp"
#include "tests/protocol/conversation.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

namespace {

export_info disk(std::string name, std::string description = {}) {
  export_info result;
  result.name = std::move(name);
  result.description = std::move(description);
  result.size = 4096;
  return result;
}

const std::vector<export_info> exports = {disk("one")};

script agreed_script(const handshake_limits& limits) {
  script result(exports, limits);
  result.receives(flags_request(3));
  return result;
}

byte_vector header_only(std::uint32_t option, std::uint32_t length) {
  return packet().text("IHAVEOPT").u32(option).u32(length);
}

}  // namespace

TEST_CASE("rule 2: options_are_counted_and_one_past_the_limit_drops_the_connection") {
  handshake_limits limits;
  limits.options_max = 3;
  script haggling = agreed_script(limits);
  for (int i = 0; i < 3; ++i) haggling.receives(option_request(8)).sends(reply(8, err_unsup));
  haggling.ends_with(waiting());
  haggling.receives(option_request(2)).ends_with(dropped(protocol_errc::option_limit));
}

TEST_CASE("rule 2: the_last_option_of_the_limit_may_be_go") {
  handshake_limits limits;
  limits.options_max = 1;
  agreed_script(limits)
      .receives(go_request("one"))
      .sends(described(7, exports[0]))
      .sends(ack(7))
      .ends_with(entered("one"));
}

TEST_CASE("rule 2: the_bytes_of_all_options_are_counted_and_one_past_the_limit_drops_the_connection") {
  handshake_limits limits;
  limits.total_bytes_max = 3 * option_header_size + 100;
  const auto haggling = [&](std::size_t last) {
    script result = agreed_script(limits);
    result.receives(option_request(8, byte_vector(60))).sends(reply(8, err_unsup));
    result.receives(option_request(8)).sends(reply(8, err_unsup));
    result.receives(option_request(8, byte_vector(last)));
    return result;
  };
  haggling(40).sends(reply(8, err_unsup)).ends_with(waiting());
  haggling(41).ends_with(dropped(protocol_errc::handshake_too_long));
}

TEST_CASE("rule 2: data_past_the_buffer_is_consumed_and_answered_too_big") {
  handshake_limits limits;
  limits.option_length_max = 64;
  const std::string fits(64 - 6, 'n'), too_long(64 - 5, 'n');
  for (const std::uint32_t option : {6U, 7U}) {
    agreed_script(limits)
        .receives(option_request(option, query_data(fits, {})))
        .sends(reply(option, err_unknown))
        .receives(option_request(option, query_data(too_long, {})))
        .sends(reply(option, err_too_big))
        .receives(go_request("one"))
        .sends(described(7, exports[0]))
        .sends(ack(7))
        .ends_with(entered("one"));
  }
}

TEST_CASE("rule 2: by_default_16_kib_of_data_are_read_and_a_byte_more_is_too_big") {
  const std::size_t length = 16384;
  const std::vector<std::uint16_t> infos((length - 6 - 3 - 1) / 2);
  agreed_script({})
      .receives(option_request(7, byte_vector(length)))
      .sends(reply(7, err_invalid))
      .receives(option_request(7, byte_vector(length + 1)))
      .sends(reply(7, err_too_big))
      .receives(go_request("one", infos))
      .sends(described(7, exports[0]))
      .sends(ack(7))
      .ends_with(entered("one"));
}

TEST_CASE("rule 12: queries_are_counted_and_one_past_the_limit_is_too_big") {
  handshake_limits limits;
  const std::vector<std::string> fits(limits.context_queries_max, "x:"), too_many(1025, "x:");
  REQUIRE(fits.size() == 1024);
  for (const std::uint32_t option : {9U, 10U}) {
    script(exports, limits, {true, true, true})
        .receives(flags_request(3))
        .receives(option_request(8))
        .sends(ack(8))
        .receives(option_request(option, context_data("one", fits)))
        .sends(ack(option))
        .receives(option_request(option, context_data("one", too_many)))
        .sends(reply(option, err_too_big))
        .ends_with(waiting());
  }
}

TEST_CASE("rule 2: data_past_the_buffer_is_too_big_for_the_context_options_too") {
  handshake_limits limits;
  limits.option_length_max = 64;
  const std::string fits(64 - 8, 'n'), too_long(64 - 7, 'n');
  for (const std::uint32_t option : {9U, 10U}) {
    script(exports, limits, {true, true, true})
        .receives(flags_request(3))
        .receives(option_request(11))
        .sends(ack(11))
        .receives(option_request(option, context_data(fits, {})))
        .sends(reply(option, err_unknown))
        .receives(option_request(option, context_data(too_long, {})))
        .sends(reply(option, err_too_big))
        .ends_with(waiting());
  }
}

TEST_CASE("long_data_that_nobody_reads_is_no_reason_for_another_answer") {
  handshake_limits limits;
  limits.option_length_max = 8;
  agreed_script(limits)
      .receives(option_request(99, byte_vector(100)))
      .sends(reply(99, err_unsup))
      .receives(option_request(3, byte_vector(100)))
      .sends(reply(3, err_invalid))
      .receives(option_request(2, byte_vector(100)))
      .sends(ack(2))
      .ends_with(closed());
}

TEST_CASE("export_name_past_a_small_buffer_closes_because_it_cannot_be_answered") {
  handshake_limits limits;
  limits.option_length_max = 2;
  agreed_script(limits)
      .receives(export_name_request("one"))
      .ends_with(dropped(protocol_errc::malformed_export_name));
}

TEST_CASE("a_long_list_is_answered_in_several_sends") {
  const std::vector<export_info> many(100, disk("name", "about"));
  handshake_limits limits;
  limits.list_bytes_per_send = 200;
  const byte_vector entry = listed("name", "about");
  script haggling(many, limits);
  haggling.receives(flags_request(3)).receives(option_request(3));
  for (std::size_t i = 0; i < many.size(); ++i) haggling.sends(entry);
  haggling.sends(ack(3))
      .receives(go_request("name"))
      .sends(described(7, many[0]))
      .sends(ack(7))
      .ends_with(entered("name"));

  handshake under_test(many, limits);
  (void)under_test.resume({});  // The greeting, which other tests look at.
  handshake::action next = under_test.resume(joined(flags_request(3), option_request(3)));
  std::size_t sends = 0;
  for (; next.what == handshake::step::send; next = under_test.resume({})) {
    CHECK(under_test.output().size() <= limits.list_bytes_per_send + entry.size() + option_reply_header_size);
    ++sends;
  }
  CHECK(sends > 10);
}

TEST_CASE("one_call_answers_one_option") {
  handshake under_test(exports);
  (void)under_test.resume({});  // The greeting, which other tests look at.
  byte_vector said = flags_request(3);
  for (int i = 0; i < 10; ++i) said = joined(said, option_request(8));
  const handshake::action next = under_test.resume(said);
  CHECK(next.what == handshake::step::send);
  CHECK(next.consumed == client_flags_size + option_header_size);
}

TEST_CASE("CVE-2017-15119: an_option_that_announces_4_gib_drops_the_connection_at_its_header") {
  for (const std::uint32_t option : {2U, 3U, 6U, 7U, 9U, 99U}) {
    agreed_script({})
        .receives(header_only(option, 0xffffffff))
        .ends_with(dropped(protocol_errc::handshake_too_long));
  }
}

TEST_CASE("CVE-2022-26495: an_announced_length_of_2_32_minus_1_does_not_wrap") {
  handshake_limits limits;
  limits.total_bytes_max = ~std::uint64_t{0};
  limits.option_length_max = 0xffffffff;
  agreed_script(limits).receives(header_only(7, 0xffffffff)).ends_with(waiting());
  agreed_script({})
      .receives(header_only(1, 0xffffffff))
      .ends_with(dropped(protocol_errc::handshake_too_long));
}

TEST_CASE("CVE-2022-26496, CVE-2017-15118: a_name_of_any_length_needs_no_room_on_the_stack") {
  for (const std::size_t length : {256U, 1024U, 4096U, 4097U, 16000U}) {
    agreed_script({})
        .receives(info_request(std::string(length, 'n')))
        .sends(reply(6, length > 4096 ? err_invalid : err_unknown))
        .ends_with(waiting());
  }
}
