// The rules of the handshake, one by one. Every script is also played cut at every byte; see
// conversation.hpp.
#include "protocol/handshake.hpp"

#include <string>
#include <vector>

#include "tests/protocol/conversation.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;
using namespace std::string_literals;

namespace {

constexpr std::uint32_t fixed = client_flag::fixed_newstyle;
constexpr std::uint32_t both = client_flag::fixed_newstyle | client_flag::no_zeroes;

export_info disk(std::string name, std::uint64_t size = 4096, std::string description = {}) {
  export_info result;
  result.name = std::move(name);
  result.description = std::move(description);
  result.size = size;
  result.flags = transmission_flag::has_flags | transmission_flag::send_flush | transmission_flag::rotational;
  return result;
}

const std::vector<export_info> two = {disk("one", 1U << 20U, "The first"), disk("two", ~std::uint64_t{0})};

byte_vector export_name_answer(const export_info& chosen, std::size_t zeroes) {
  return packet().u64(chosen.size).u16(chosen.flags).zeroes(zeroes);
}

script fixed_script(const std::vector<export_info>& exports, handshake_limits limits = {}) {
  script result(exports, limits);
  result.receives(flags_request(both));
  return result;
}

}  // namespace

TEST_CASE("the_server_speaks_first_and_then_waits") {
  script(two).ends_with(waiting());
}

TEST_CASE("rule 1: unknown_client_flags_drop_the_connection") {
  for (unsigned bit = 2; bit < 32; ++bit) {
    script(two)
        .receives(flags_request(1U << bit | both))
        .ends_with(dropped(protocol_errc::unknown_client_flags));
  }
}

TEST_CASE("rule 1: flags_that_were_offered_are_accepted") {
  for (const std::uint32_t flags : {0U, fixed, both, both & ~fixed})
    script(two).receives(flags_request(flags)).ends_with(waiting());
}

TEST_CASE("an_option_without_the_options_magic_drops_the_connection") {
  fixed_script(two)
      .receives(packet().text("IHAVEOPS").u32(7).u32(0))
      .ends_with(dropped(protocol_errc::bad_magic));
}

TEST_CASE("a_client_without_fixed_newstyle_has_export_name_and_nothing_else") {
  script(two)
      .receives(flags_request(0))
      .receives(export_name_request("one"))
      .sends(export_name_answer(two[0], 124))
      .ends_with(entered("one", false));
  for (const std::uint32_t option : {2U, 3U, 6U, 7U, 8U, 99U}) {
    script(two)
        .receives(flags_request(client_flag::no_zeroes))
        .receives(option_request(option))
        .ends_with(dropped(protocol_errc::fixed_newstyle_required));
  }
}

TEST_CASE("rule 2: options_that_are_not_served_are_consumed_and_answered_unsup") {
  for (const std::uint32_t option : {0U, 4U, 5U, 8U, 9U, 10U, 11U, 12U, 0x7fffffffU, 0xffffffffU}) {
    fixed_script(two)
        .receives(option_request(option, packet().text("some data, to be skipped")))
        .sends(reply(option, err_unsup))
        .receives(option_request(option))
        .sends(reply(option, err_unsup))
        .receives(go_request("one"))
        .sends(described(7, two[0]))
        .sends(ack(7))
        .ends_with(entered("one"));
  }
}

TEST_CASE("rule 3: a_name_of_4096_bytes_is_accepted") {
  const std::vector<export_info> long_named = {disk(std::string(4096, 'n')), disk("other")};
  const std::string& name = long_named[0].name;
  fixed_script(long_named)
      .receives(export_name_request(name))
      .sends(export_name_answer(long_named[0], 0))
      .ends_with(entered(name));
  fixed_script(long_named)
      .receives(go_request(name))
      .sends(described(7, long_named[0]))
      .sends(ack(7))
      .ends_with(entered(name));
}

TEST_CASE("rule 3: a_name_of_4097_bytes_is_refused") {
  const std::string name(4097, 'n');
  fixed_script(two)
      .receives(export_name_request(name))
      .ends_with(dropped(protocol_errc::malformed_export_name));
  fixed_script(two).receives(go_request(name)).sends(reply(7, err_invalid)).ends_with(waiting());
  fixed_script(two).receives(info_request(name)).sends(reply(6, err_invalid)).ends_with(waiting());
}

TEST_CASE("rule 3: names_with_nul_or_not_utf_8_are_refused") {
  for (const std::string& name : {"one\0"s, "\0"s, "\xff"s, "one\xc3"s}) {
    fixed_script(two)
        .receives(export_name_request(name))
        .ends_with(dropped(protocol_errc::malformed_export_name));
    fixed_script(two).receives(info_request(name)).sends(reply(6, err_invalid)).ends_with(waiting());
    fixed_script(two).receives(go_request(name)).sends(reply(7, err_invalid)).ends_with(waiting());
  }
}

TEST_CASE("rule 3: the_empty_name_is_the_default_export_everywhere") {
  const std::vector<export_info> nameless = {disk("one"), disk("", 512)};
  const std::vector<export_info> single = {disk("only", 1024)};
  for (const auto* exports : {&nameless, &single}) {
    const export_info& chosen = exports->back();
    fixed_script(*exports)
        .receives(export_name_request(""))
        .sends(export_name_answer(chosen, 0))
        .ends_with(entered(chosen.name));
    fixed_script(*exports)
        .receives(info_request(""))
        .sends(described(6, chosen))
        .sends(ack(6))
        .ends_with(waiting());
    fixed_script(*exports)
        .receives(go_request(""))
        .sends(described(7, chosen))
        .sends(ack(7))
        .ends_with(entered(chosen.name));
  }
}

TEST_CASE("rule 3: the_default_among_several_named_exports_is_not_guessed") {
  fixed_script(two).receives(export_name_request("")).ends_with(dropped(protocol_errc::unknown_export));
  fixed_script(two).receives(go_request("")).sends(reply(7, err_unknown)).ends_with(waiting());
}

TEST_CASE("rule 4: no_info_requests_still_get_the_export_and_an_ack") {
  fixed_script(two)
      .receives(go_request("two"))
      .sends(described(7, two[1]))
      .sends(ack(7))
      .ends_with(entered("two"));
}

TEST_CASE("rule 4: infos_are_answered_when_asked_for_and_unknown_ones_ignored") {
  fixed_script(two)
      .receives(go_request("one", {0, 77, 1, 2, 3, 3, 0xffff}))
      .sends(described(7, two[0]))
      .sends(reply(7, 3, packet().u16(1).text("one")))
      .sends(reply(7, 3, packet().u16(2).text("The first")))
      .sends(reply(7, 3, packet().u16(3).u32(1).u32(4096).u32(request_payload_max)))
      .sends(ack(7))
      .ends_with(entered("one", true, true));
}

TEST_CASE("rule 4: a_description_that_does_not_exist_is_not_sent") {
  fixed_script(two)
      .receives(go_request("two", {2}))
      .sends(described(7, two[1]))
      .sends(ack(7))
      .ends_with(entered("two"));
}

TEST_CASE("rule 4: lengths_that_do_not_match_are_invalid") {
  const byte_vector rows[] = {
      {},
      packet().u32(0),
      packet().u32(0).u8(0),
      packet().u32(1).u16(0),
      packet().u32(4).text("one").u16(0),
      packet().u32(3).text("one").u16(1),
      packet().u32(3).text("one").u16(1).u8(0),
      packet().u32(3).text("one").u16(0).u8(0),
      packet().u32(3).text("one").u16(0).u16(0),
      packet().u32(3).text("one").u16(0xffff).u16(0),
      packet().u32(0xffffffff).text("one").u16(0),
      packet().u32(0xfffffffa).u16(0),
  };
  for (const byte_vector& data : rows) {
    for (const std::uint32_t option : {6U, 7U}) {
      fixed_script(two)
          .receives(option_request(option, data))
          .sends(reply(option, err_invalid))
          .receives(go_request("one"))
          .sends(described(7, two[0]))
          .sends(ack(7))
          .ends_with(entered("one"));
    }
  }
}

TEST_CASE("rule 5: info_answers_like_go_and_binds_nothing") {
  fixed_script(two)
      .receives(info_request("two", {1, 3}))
      .sends(described(6, two[1]))
      .sends(reply(6, 3, packet().u16(1).text("two")))
      .sends(reply(6, 3, packet().u16(3).u32(1).u32(4096).u32(request_payload_max)))
      .sends(ack(6))
      .receives(go_request("one"))
      .sends(described(7, two[0]))
      .sends(ack(7))
      .ends_with(entered("one"));
}

TEST_CASE("rule 6: export_name_for_an_unknown_export_closes_without_a_word") {
  fixed_script(two).receives(export_name_request("three")).ends_with(dropped(protocol_errc::unknown_export));
  fixed_script({}).receives(export_name_request("")).ends_with(dropped(protocol_errc::unknown_export));
}

TEST_CASE("rule 6: go_for_an_unknown_export_is_answered_and_the_haggling_goes_on") {
  fixed_script(two)
      .receives(go_request("three", {3}))
      .sends(reply(7, err_unknown))
      .receives(info_request("ONE"))
      .sends(reply(6, err_unknown))
      .receives(go_request("two"))
      .sends(described(7, two[1]))
      .sends(ack(7))
      .ends_with(entered("two"));
}

TEST_CASE("rule 7: zeroes_follow_export_name_unless_both_agreed_to_leave_them_out") {
  script(two)
      .receives(flags_request(fixed))
      .receives(export_name_request("one"))
      .sends(export_name_answer(two[0], 124))
      .ends_with(entered("one", false));
  script(two)
      .receives(flags_request(both))
      .receives(export_name_request("one"))
      .sends(export_name_answer(two[0], 0))
      .ends_with(entered("one", true));
}

TEST_CASE("rule 7: zeroes_never_follow_go") {
  script(two)
      .receives(flags_request(fixed))
      .receives(go_request("one"))
      .sends(described(7, two[0]))
      .sends(ack(7))
      .ends_with(entered("one", false));
}

TEST_CASE("rule 8: list_names_every_export") {
  fixed_script(two)
      .receives(option_request(3))
      .sends(listed("one", "The first"))
      .sends(listed("two"))
      .sends(ack(3))
      .receives(option_request(3))
      .sends(listed("one", "The first"))
      .sends(listed("two"))
      .sends(ack(3))
      .ends_with(waiting());
  fixed_script({}).receives(option_request(3)).sends(ack(3)).ends_with(waiting());
}

TEST_CASE("rule 8: list_with_data_is_invalid") {
  fixed_script(two)
      .receives(option_request(3, packet().u8(0)))
      .sends(reply(3, err_invalid))
      .ends_with(waiting());
}

TEST_CASE("rule 8: abort_is_acknowledged_and_then_closed") {
  fixed_script(two).receives(option_request(2)).sends(ack(2)).ends_with(closed());
  fixed_script(two).receives(option_request(2, packet().text("bye"))).sends(ack(2)).ends_with(closed());
}

TEST_CASE("rule 10: without_tls_no_option_is_answered_tls_reqd") {
  for (std::uint32_t option = 0; option < 20; ++option) {
    if (option == 1) continue;
    handshake under_test(two);
    (void)under_test.resume({});  // The greeting, which other tests look at.
    const byte_vector said = joined(flags_request(both), option_request(option));
    REQUIRE(under_test.resume(said).consumed == said.size());
    const auto header = decode_option_reply_header(under_test.output().first<option_reply_header_size>());
    REQUIRE(header);
    CHECK(header->what != option_reply::err_tls_reqd);
  }
}

TEST_CASE("flags_that_cannot_be_kept_are_not_offered") {
  std::vector<export_info> eager = {disk("one")};
  eager[0].flags = 0xffff;
  export_info shown = eager[0];
  shown.flags = offered_flags(eager[0], {});
  CHECK(shown.flags != eager[0].flags);
  fixed_script(eager)
      .receives(go_request("one"))
      .sends(described(7, shown))
      .sends(ack(7))
      .ends_with(entered("one"));
  fixed_script(eager)
      .receives(export_name_request("one"))
      .sends(export_name_answer(shown, 0))
      .ends_with(entered("one"));
}

TEST_CASE("requests_sent_along_with_the_last_option_are_left_to_the_session") {
  const byte_vector request = packet().u32(request_magic).zeroes(24);
  fixed_script(two)
      .receives(go_request("one"))
      .sends(described(7, two[0]))
      .sends(ack(7))
      .receives(request)
      .ends_with(entered("one", true, false, request));
  fixed_script(two)
      .receives(export_name_request("one"))
      .sends(export_name_answer(two[0], 0))
      .receives(request)
      .ends_with(entered("one", true, false, request));
}

TEST_CASE("rule 35: in_shutdown_options_are_answered_shutdown_and_abort_is_acknowledged") {
  fixed_script(two)
      .receives(info_request("one"))
      .sends(described(6, two[0]))
      .sends(ack(6))
      .shuts_down()
      .receives(go_request("one"))
      .sends(reply(7, err_shutdown))
      .receives(option_request(3))
      .sends(reply(3, err_shutdown))
      .receives(option_request(99, packet().text("data")))
      .sends(reply(99, err_shutdown))
      .receives(option_request(2))
      .sends(ack(2))
      .ends_with(closed());
}

TEST_CASE("rule 35: in_shutdown_export_name_closes_and_nobody_is_to_blame") {
  fixed_script(two).shuts_down().receives(export_name_request("one")).ends_with(closed());
}

TEST_CASE("rule 35: shutdown_in_the_middle_of_an_option_holds_for_that_option") {
  const byte_vector said = go_request("one");
  for (std::size_t cut = 0; cut < said.size(); ++cut) {
    const auto middle = said.begin() + static_cast<std::ptrdiff_t>(cut);
    fixed_script(two)
        .receives({said.begin(), middle})
        .shuts_down()
        .receives({middle, said.end()})
        .sends(reply(7, err_shutdown))
        .ends_with(waiting());
  }
}

TEST_CASE("CVE-2011-1925: nothing_is_chosen_while_negotiation_fails") {
  handshake under_test(two);
  (void)under_test.resume({});  // The greeting, which other tests look at.
  for (const byte_vector& said :
       {flags_request(both), go_request("three"), info_request("one", {3}), option_request(7)}) {
    (void)under_test.resume(said);  // Only what was agreed matters here.
    CHECK(under_test.agreed().chosen == nullptr);
    CHECK_FALSE(under_test.agreed().block_sizes_requested);
  }
}

TEST_CASE("CVE-2013-7441, CVE-2017-7539, CVE-2017-9524: a_client_may_leave_at_any_byte") {
  const byte_vector said =
      joined(joined(flags_request(both), option_request(3)), go_request("one", {1, 2, 3}));
  for (std::size_t length = 0; length <= said.size(); ++length) {
    handshake under_test(two);
    std::size_t fed = 0;
    handshake::action next = under_test.resume({});
    while (next.what == handshake::step::send) {
      next = under_test.resume(exact_copy(std::span(said).subspan(fed, length - fed)));
      fed += next.consumed;
    }
    CHECK((next.what == handshake::step::enter_transmission) == (length == said.size()));
  }
}

TEST_CASE("CVE-2019-14851: options_may_come_in_any_order_and_any_number") {
  const std::vector<std::pair<byte_vector, byte_vector>> options = {
      {option_request(3), joined(joined(listed("one", "The first"), listed("two")), ack(3))},
      {info_request("two"), joined(described(6, two[1]), ack(6))},
      {go_request("three"), reply(7, err_unknown)},
      {option_request(8), reply(8, err_unsup)},
  };
  for (const auto& first : options) {
    for (const auto& second : options) {
      for (const auto& third : options) {
        fixed_script(two)
            .receives(first.first)
            .sends(first.second)
            .receives(second.first)
            .sends(second.second)
            .receives(third.first)
            .sends(third.second)
            .receives(go_request("one"))
            .sends(described(7, two[0]))
            .sends(ack(7))
            .ends_with(entered("one"));
      }
    }
  }
}

TEST_CASE("CVE-2020-10761: a_long_name_in_an_error_text_is_cut_not_asserted_on") {
  for (const std::string& name : {std::string(4096, 'n'), std::string(4094, 'n') + "\xc3\xa9"}) {
    fixed_script(two).receives(go_request(name)).sends(reply(7, err_unknown)).ends_with(waiting());
  }
}
