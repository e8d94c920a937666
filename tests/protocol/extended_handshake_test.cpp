// STRUCTURED_REPLY, EXTENDED_HEADERS and the metadata options, one by one and together. Every script is also
// played cut at every byte; see conversation.hpp.
#include <string>
#include <vector>

#include "protocol/handshake.hpp"
#include "tests/protocol/conversation.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;
using namespace std::string_literals;

namespace {

constexpr unsigned df = transmission_flag::send_df;
constexpr unsigned payload = transmission_flag::block_status_payload;
constexpr handshake_offers everything{true, true, true};
constexpr std::uint32_t structured = 8, extended = 11, list_contexts = 9, set_contexts = 10;

const std::vector<export_info> two = {plain_disk("one"), plain_disk("two")};

script open_script(handshake_offers offers = everything, const std::vector<export_info>& exports = two) {
  script result(exports, {}, offers);
  result.receives(flags_request(3));
  return result;
}

script agreed_script(std::uint32_t option) {
  script result = open_script();
  result.receives(option_request(option)).sends(ack(option));
  return result;
}

reply_mode mode_of(std::uint32_t option) {
  return option == extended ? reply_mode::extended : reply_mode::structured;
}

unsigned flags_with_allocation(std::uint32_t option) {
  return option == extended ? df | payload : df;
}

// GO, and the end of a script that chose an export of `two` in this mode.
void goes(script& haggling, std::uint32_t option, const export_info& chosen, bool allocation) {
  haggling.receives(go_request(chosen.name))
      .sends(described(7, chosen, allocation ? flags_with_allocation(option) : df))
      .sends(ack(7))
      .ends_with(entered_with(mode_of(option), chosen.name, allocation));
}

}  // namespace

TEST_CASE("options_are_unsupported_unless_the_server_offers_them") {
  struct row {
    handshake_offers offers;
    std::vector<std::uint32_t> refused;
  };
  for (const row& each : {row{{}, {8, 9, 10, 11}}, row{{true, false, false}, {9, 10, 11}},
                          row{{false, false, true}, {8, 9, 10}}, row{{true, true, false}, {11}},
                          row{{false, true, true}, {8}}}) {
    for (const std::uint32_t option : each.refused) {
      open_script(each.offers)
          .receives(option_request(option, context_data("one", {"base:allocation"})))
          .sends(reply(option, err_unsup))
          .receives(option_request(option))
          .sends(reply(option, err_unsup))
          .receives(go_request("one"))
          .sends(described(7, two[0]))
          .sends(ack(7))
          .ends_with(entered("one"));
    }
  }
}

TEST_CASE("rule 11: structured_replies_and_extended_headers_are_agreed") {
  for (const std::uint32_t option : {structured, extended}) {
    script haggling = agreed_script(option);
    goes(haggling, option, two[0], false);
  }
}

TEST_CASE("rule 11: what_was_agreed_shows_in_info_as_in_go") {
  for (const std::uint32_t option : {structured, extended}) {
    script haggling = agreed_script(option);
    haggling.receives(info_request("one")).sends(described(6, two[0], df)).sends(ack(6));
    haggling.receives(set_contexts_request("one", {"base:allocation"}))
        .sends(allocation_set())
        .sends(ack(10))
        .receives(info_request("one"))
        .sends(described(6, two[0], flags_with_allocation(option)))
        .sends(ack(6))
        .receives(info_request("two"))
        .sends(described(6, two[1], df))
        .sends(ack(6));
    goes(haggling, option, two[0], true);
  }
}

TEST_CASE("rule 11: with_data_they_are_invalid_and_agree_nothing") {
  for (const std::uint32_t option : {structured, extended}) {
    open_script()
        .receives(option_request(option, packet().u8(0)))
        .sends(reply(option, err_invalid))
        .receives(option_request(option, byte_vector(20'000)))
        .sends(reply(option, err_invalid))
        .receives(go_request("one"))
        .sends(described(7, two[0]))
        .sends(ack(7))
        .ends_with(entered("one"));
  }
}

TEST_CASE("rule 11: asking_twice_is_invalid_and_changes_nothing") {
  for (const std::uint32_t option : {structured, extended}) {
    script haggling = agreed_script(option);
    haggling.receives(option_request(option)).sends(reply(option, err_invalid));
    haggling.receives(option_request(option, packet().u8(0))).sends(reply(option, err_invalid));
    goes(haggling, option, two[1], false);
  }
}

TEST_CASE("rule 11: extended_headers_take_the_place_of_structured_replies") {
  script haggling = agreed_script(structured);
  haggling.receives(option_request(extended)).sends(ack(extended));
  goes(haggling, extended, two[0], false);
}

TEST_CASE("rule 11: after_extended_headers_structured_replies_are_answered_ext_header_reqd") {
  script haggling = agreed_script(extended);
  haggling.receives(option_request(structured)).sends(reply(structured, err_ext_header_reqd));
  haggling.receives(option_request(structured, packet().u8(0))).sends(reply(structured, err_invalid));
  goes(haggling, extended, two[0], false);
}

TEST_CASE("rule 11: after_extended_headers_export_name_ends_the_connection") {
  for (const char* name : {"one", "three", ""}) {
    agreed_script(extended)
        .receives(export_name_request(name))
        .ends_with(dropped(protocol_errc::export_name_with_extended_headers));
  }
}

TEST_CASE("rule 11: after_structured_replies_export_name_is_served") {
  agreed_script(structured)
      .receives(export_name_request("one"))
      .sends(packet().u64(two[0].size).u16(two[0].flags | df))
      .ends_with(entered_with(reply_mode::structured, "one"));
}

TEST_CASE("rule 12: a_choice_holds_for_export_name_too") {
  agreed_script(structured)
      .receives(set_contexts_request("one", {"base:allocation"}))
      .sends(allocation_set())
      .sends(ack(10))
      .receives(export_name_request("one"))
      .sends(packet().u64(two[0].size).u16(two[0].flags | df))
      .ends_with(entered_with(reply_mode::structured, "one", true));
}

TEST_CASE("rule 12: metadata_needs_structured_replies_or_extended_headers") {
  for (const std::uint32_t option : {list_contexts, set_contexts}) {
    open_script()
        .receives(option_request(option, context_data("one", {"base:allocation"})))
        .sends(reply(option, err_invalid))
        .receives(option_request(structured))
        .sends(ack(structured))
        .receives(go_request("one"))
        .sends(described(7, two[0], df))
        .sends(ack(7))
        .ends_with(entered_with(reply_mode::structured, "one", false));
  }
}

TEST_CASE("rule 12: list_finds_what_is_asked_for") {
  struct row {
    std::vector<std::string> queries;
    bool found;
  };
  const row rows[] = {
      {{}, true},
      {{"base:"}, true},
      {{"base:allocation"}, true},
      {{"base:", "base:allocation", "base:"}, true},
      {{"qemu:dirty-bitmap:x", "base:allocation"}, true},
      {{"base:allocation", "qemu:dirty-bitmap:x"}, true},
      {{"base:alloc"}, false},
      {{"base:allocation2"}, false},
      {{"x-nosuch:"}, false},
      {{"nbd-server:anything", "x-local:\xc3\xa9"}, false},
  };
  for (const std::uint32_t option : {structured, extended}) {
    for (const row& each : rows) {
      script haggling = agreed_script(option);
      haggling.receives(list_contexts_request("one", each.queries));
      if (each.found) haggling.sends(allocation_listed());
      haggling.sends(ack(9));
      goes(haggling, option, two[0], false);
    }
  }
}

TEST_CASE("rule 12: set_chooses_what_is_named_in_full") {
  struct row {
    std::vector<std::string> queries;
    bool found;
  };
  const row rows[] = {
      {{}, false},
      {{"base:"}, false},
      {{"base:allocation"}, true},
      {{"base:allocation", "base:allocation", "base:allocation"}, true},
      {{"x-nosuch:y", "base:", "base:allocation"}, true},
      {{"base:allocation", "x-nosuch:y", "base:other"}, true},
      {{"base:other"}, false},
      {{"qemu:allocation-depth"}, false},
      {{"Base:allocation"}, false},
  };
  for (const std::uint32_t option : {structured, extended}) {
    for (const row& each : rows) {
      script haggling = agreed_script(option);
      haggling.receives(set_contexts_request("one", each.queries));
      if (each.found) haggling.sends(allocation_set());
      haggling.sends(ack(10));
      goes(haggling, option, two[0], each.found);
    }
  }
}

TEST_CASE("rule 12: a_later_set_replaces_the_choice_even_when_it_fails") {
  struct row {
    byte_vector data;
    byte_vector answer;
  };
  const row rows[] = {
      {context_data("one", {}), ack(10)},
      {context_data("one", {"base:"}), ack(10)},
      {context_data("three", {"base:allocation"}), reply(10, err_unknown)},
      {context_data("one", {"no colon"}), reply(10, err_invalid)},
      {context_data("\xff", {"base:allocation"}), reply(10, err_invalid)},
      {packet().u32(99), reply(10, err_invalid)},
      {byte_vector(20'000), reply(10, err_too_big)},
      {context_data("two", {"base:allocation"}), joined(allocation_set(), ack(10))},
  };
  for (const std::uint32_t option : {structured, extended}) {
    for (const row& each : rows) {
      script haggling = agreed_script(option);
      haggling.receives(set_contexts_request("one", {"base:allocation"}))
          .sends(allocation_set())
          .sends(ack(10))
          .receives(option_request(set_contexts, each.data))
          .sends(each.answer);
      goes(haggling, option, two[0], false);
    }
  }
}

TEST_CASE("rule 12: list_is_stateless_and_an_earlier_choice_survives_it") {
  for (const std::uint32_t option : {structured, extended}) {
    script haggling = agreed_script(option);
    haggling.receives(set_contexts_request("one", {"base:allocation"}))
        .sends(allocation_set())
        .sends(ack(10));
    haggling.receives(list_contexts_request("two", {"base:"})).sends(allocation_listed()).sends(ack(9));
    haggling.receives(list_contexts_request("one", {"bad"})).sends(reply(9, err_invalid));
    goes(haggling, option, two[0], true);
  }
}

TEST_CASE("rule 12: the_choice_holds_only_for_the_same_export_name") {
  const std::vector<export_info> single = {plain_disk("only")};
  for (const std::uint32_t option : {structured, extended}) {
    script other = agreed_script(option);
    other.receives(set_contexts_request("two", {"base:allocation"})).sends(allocation_set()).sends(ack(10));
    goes(other, option, two[0], false);

    for (const auto& [chosen_for, name] : {std::pair{"", ""}, {"only", "only"}, {"", "only"}, {"only", ""}}) {
      const bool same = std::string_view(chosen_for) == name;
      open_script(everything, single)
          .receives(option_request(option))
          .sends(ack(option))
          .receives(set_contexts_request(chosen_for, {"base:allocation"}))
          .sends(allocation_set())
          .sends(ack(10))
          .receives(go_request(name))
          .sends(described(7, single[0], same ? flags_with_allocation(option) : df))
          .sends(ack(7))
          .ends_with(entered_with(mode_of(option), "only", same));
    }
  }
}

TEST_CASE("rule 12: a_failed_go_leaves_the_choice_alone") {
  script haggling = agreed_script(structured);
  haggling.receives(set_contexts_request("two", {"base:allocation"})).sends(allocation_set()).sends(ack(10));
  haggling.receives(go_request("three")).sends(reply(7, err_unknown));
  goes(haggling, structured, two[1], true);
}

TEST_CASE("rule 12: a_choice_made_with_structured_replies_survives_extended_headers") {
  script haggling = agreed_script(structured);
  haggling.receives(set_contexts_request("one", {"base:allocation"})).sends(allocation_set()).sends(ack(10));
  haggling.receives(option_request(extended)).sends(ack(extended));
  goes(haggling, extended, two[0], true);
}

TEST_CASE("rule 12: queries_that_are_none_are_invalid") {
  const std::vector<std::string> rows = {
      "", "allocation", ":", ":allocation", "base:a\0b"s, "base:\xff", "base:" + std::string(4096, 'x')};
  for (const std::string& query : rows) {
    for (const std::uint32_t option : {list_contexts, set_contexts}) {
      agreed_script(structured)
          .receives(option_request(option, context_data("one", {"base:allocation", query})))
          .sends(reply(option, err_invalid))
          .ends_with(waiting());
    }
  }
}

TEST_CASE("rule 12: a_query_of_4096_bytes_is_one") {
  agreed_script(structured)
      .receives(list_contexts_request("one", {"base:" + std::string(4091, 'x'), "base:"}))
      .sends(allocation_listed())
      .sends(ack(9))
      .ends_with(waiting());
}

TEST_CASE("rule 12: lengths_and_counts_that_do_not_match_are_invalid") {
  const byte_vector rows[] = {
      {},
      packet().u32(0),
      packet().u32(0).u32(1),
      packet().u32(0).u32(0).u8(0),
      packet().u32(0).u32(0xffffffff),
      packet().u32(0).u32(0xffffffff).u32(0),
      packet().u32(0xffffffff).u32(0),
      packet().u32(0xfffffff8).u32(0),
      packet().u32(5).u32(0),
      packet().u32(0).u32(1).u32(1),
      packet().u32(0).u32(1).u32(0xffffffff).text("base:"),
      packet().u32(0).u32(2).u32(5).text("base:").u32(1),
      packet().u32(0).u32(1).u32(5).text("base:").u8(0),
      packet().u32(3).text("one").u32(2).u32(5).text("base:"),
  };
  for (const byte_vector& data : rows) {
    for (const std::uint32_t option : {list_contexts, set_contexts}) {
      script haggling = agreed_script(extended);
      haggling.receives(option_request(option, data)).sends(reply(option, err_invalid));
      goes(haggling, extended, two[0], false);
    }
  }
}

TEST_CASE("rule 12: an_unknown_export_has_no_contexts") {
  for (const std::uint32_t option : {list_contexts, set_contexts}) {
    agreed_script(structured)
        .receives(option_request(option, context_data("three", {})))
        .sends(reply(option, err_unknown))
        .receives(option_request(option, context_data("", {"base:allocation"})))
        .sends(reply(option, err_unknown))
        .ends_with(waiting());
  }
}

TEST_CASE("rule 35: in_shutdown_the_new_options_are_answered_shutdown") {
  for (const std::uint32_t option : {structured, extended, list_contexts, set_contexts}) {
    open_script()
        .shuts_down()
        .receives(option_request(option, context_data("one", {})))
        .sends(reply(option, err_shutdown))
        .ends_with(waiting());
  }
}

TEST_CASE("CVE-2019-14851: the_new_options_may_come_in_any_order_and_any_number") {
  // What is agreed follows from the last that succeeded, whatever came between.
  const byte_vector options[] = {option_request(structured), option_request(extended),
                                 set_contexts_request("one", {"base:allocation"}),
                                 list_contexts_request("one", {}), set_contexts_request("one", {})};
  for (const byte_vector& first : options) {
    for (const byte_vector& second : options) {
      for (const byte_vector& third : options) {
        handshake under_test(two, {}, everything);
        reply_mode agreed = reply_mode::simple;
        bool selected = false;
        (void)under_test.resume({});  // The greeting, which other tests look at.
        byte_vector said = flags_request(3);
        for (const byte_vector* each : {&first, &second, &third}) {
          said = joined(said, *each);
          REQUIRE(under_test.resume(said).what == handshake::step::send);
          said.clear();
          if (*each == options[0] && agreed == reply_mode::simple) agreed = reply_mode::structured;
          if (*each == options[1]) agreed = reply_mode::extended;
          if (*each == options[2]) selected = agreed != reply_mode::simple;
          if (*each == options[4]) selected = false;
        }
        REQUIRE(under_test.resume(go_request("one")).what == handshake::step::enter_transmission);
        CHECK(under_test.agreed().replies == agreed);
        CHECK(under_test.agreed().allocation_selected == selected);
      }
    }
  }
}

TEST_CASE("CVE-2011-1925: no_mode_and_no_context_is_left_of_options_that_failed") {
  handshake under_test(two, {}, everything);
  (void)under_test.resume({});  // The greeting, which other tests look at.
  for (const byte_vector& said :
       {flags_request(3), option_request(structured, packet().u8(0)),
        option_request(extended, packet().u8(0)), set_contexts_request("one", {"base:allocation"})}) {
    (void)under_test.resume(said);  // Only what was agreed matters here.
    CHECK(under_test.agreed().replies == reply_mode::simple);
    CHECK_FALSE(under_test.agreed().allocation_selected);
  }
}

TEST_CASE("CVE-2017-9524: a_client_that_haggles_for_everything_may_leave_at_any_byte") {
  byte_vector said = joined(flags_request(3), option_request(structured));
  for (const byte_vector& each : {option_request(extended), list_contexts_request("one", {}),
                                  set_contexts_request("one", {"base:allocation"}), go_request("one", {3})})
    said = joined(said, each);
  for (std::size_t length = 0; length <= said.size(); ++length) {
    handshake under_test(two, {}, everything);
    std::size_t fed = 0;
    handshake::action next = under_test.resume({});
    while (next.what == handshake::step::send) {
      next = under_test.resume(exact_copy(std::span(said).subspan(fed, length - fed)));
      fed += next.consumed;
    }
    CHECK((next.what == handshake::step::enter_transmission) == (length == said.size()));
  }
}
