// What the handshake's rules say whatever was agreed before: with simple replies, structured ones, extended
// headers. Every script is also played cut at every byte; see conversation.hpp.
#include <string>
#include <vector>

#include "protocol/handshake.hpp"
#include "tests/protocol/conversation.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

namespace {

const std::vector<export_info> two = {plain_disk("one"), plain_disk("two")};
const std::vector<export_info> only = {plain_disk("only")};

reply_mode each_mode() {
  return GENERATE(reply_mode::simple, reply_mode::structured, reply_mode::extended);
}

unsigned df_in(reply_mode mode) {
  return mode == reply_mode::simple ? 0 : transmission_flag::send_df;
}

// A client that has agreed to the mode.
script agreed(reply_mode mode, std::uint32_t flags = 3, const std::vector<export_info>& exports = two) {
  script result(exports, {}, {.structured_replies = true, .metadata = true, .extended_headers = true});
  result.receives(flags_request(flags));
  if (mode == reply_mode::simple) return result;
  const std::uint32_t option = mode == reply_mode::structured ? 8 : 11;
  result.receives(option_request(option)).sends(ack(option));
  return result;
}

// The haggling goes on, and ends with what was agreed at its beginning.
void goes(script haggling, reply_mode mode, const export_info& chosen = two[0],
          const std::string& called = "one") {
  haggling.receives(go_request(called))
      .sends(described(7, chosen, df_in(mode)))
      .sends(ack(7))
      .ends_with(entered_with(mode, chosen.name));
}

}  // namespace

TEST_CASE("rule 2: options_that_are_not_served_are_consumed_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  goes(agreed(mode)
           .receives(option_request(77, byte_vector(20'000)))
           .sends(reply(77, err_unsup))
           .receives(option_request(4))
           .sends(reply(4, err_unsup)),
       mode);
}

TEST_CASE("rule 3: names_are_limited_and_the_empty_one_is_the_default_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  goes(agreed(mode, 3, only)
           .receives(go_request(std::string(4097, 'x')))
           .sends(reply(7, err_invalid))
           .receives(go_request(std::string(4096, 'x')))
           .sends(reply(7, err_unknown))
           .receives(go_request(std::string("a\0b", 3)))
           .sends(reply(7, err_invalid)),
       mode, only[0], "");
}

TEST_CASE("rule 4: lengths_must_match_in_every_mode", "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  goes(agreed(mode)
           .receives(option_request(7, packet().u32(0xffff'fff0).text("one").u16(0)))
           .sends(reply(7, err_invalid))
           .receives(option_request(7, packet().u32(3).text("one").u16(2).u16(3)))
           .sends(reply(7, err_invalid))
           .receives(option_request(6, packet().u32(3).text("one").u16(1).u16(99)))
           .sends(described(6, two[0], df_in(mode)))
           .sends(ack(6)),
       mode);
}

TEST_CASE("rule 5: info_answers_like_go_and_binds_nothing_in_every_mode", "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  goes(agreed(mode)
           .receives(info_request("two"))
           .sends(described(6, two[1], df_in(mode)))
           .sends(ack(6))
           .receives(info_request("one"))
           .sends(described(6, two[0], df_in(mode)))
           .sends(ack(6)),
       mode);
}

TEST_CASE("rule 6: go_for_an_unknown_export_is_answered_and_export_name_is_not_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  goes(agreed(mode).receives(go_request("three")).sends(reply(7, err_unknown)), mode);
  const auto why = mode == reply_mode::extended ? protocol_errc::export_name_with_extended_headers
                                                : protocol_errc::unknown_export;
  agreed(mode).receives(export_name_request("three")).ends_with(dropped(why));
}

TEST_CASE("rule 7: the_124_zeroes_follow_only_export_name_in_every_mode", "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  for (const std::uint32_t flags : {1U, 3U}) {
    const bool no_zeroes = flags == 3;
    ending end = entered_with(mode, "one");
    end.no_zeroes = no_zeroes;
    agreed(mode, flags)
        .receives(go_request("one"))
        .sends(described(7, two[0], df_in(mode)))
        .sends(ack(7))
        .ends_with(end);
    if (mode == reply_mode::extended) continue;  // where EXPORT_NAME ends the connection
    agreed(mode, flags)
        .receives(export_name_request("one"))
        .sends(packet()
                   .u64(two[0].size)
                   .u16(two[0].flags | df_in(mode))
                   .append(byte_vector(no_zeroes ? 0 : 124)))
        .ends_with(end);
  }
}

TEST_CASE("rule 8: list_and_abort_are_answered_in_every_mode", "[simple][structured][extended]") {
  agreed(each_mode())
      .receives(option_request(3, packet().u8(0)))
      .sends(reply(3, err_invalid))
      .receives(option_request(3))
      .sends(listed("one"))
      .sends(listed("two"))
      .sends(ack(3))
      .receives(option_request(2))
      .sends(ack(2))
      .ends_with(closed());
}

TEST_CASE("rule 11: asking_again_changes_nothing_in_every_mode", "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  script haggling = agreed(mode);
  haggling.receives(option_request(8, packet().u8(0))).sends(reply(8, err_invalid));
  haggling.receives(option_request(11, packet().u8(0))).sends(reply(11, err_invalid));
  if (mode == reply_mode::structured) haggling.receives(option_request(8)).sends(reply(8, err_invalid));
  if (mode == reply_mode::extended) {
    haggling.receives(option_request(8)).sends(reply(8, err_ext_header_reqd));
    haggling.receives(option_request(11)).sends(reply(11, err_invalid));
  }
  goes(haggling, mode);
}

TEST_CASE("rule 12: the_choice_of_metadata_in_every_mode", "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  script haggling = agreed(mode);
  if (mode == reply_mode::simple) {
    haggling.receives(list_contexts_request("one", {})).sends(reply(9, err_invalid));
    haggling.receives(set_contexts_request("one", {"base:allocation"})).sends(reply(10, err_invalid));
    return goes(haggling, mode);
  }
  haggling.receives(list_contexts_request("one", {})).sends(allocation_listed()).sends(ack(9));
  haggling.receives(list_contexts_request("one", {"base:"})).sends(allocation_listed()).sends(ack(9));
  haggling.receives(set_contexts_request("one", {"base:", "other:x"})).sends(ack(10));
  haggling.receives(set_contexts_request("one", {"base:allocation", "base:allocation"}))
      .sends(allocation_set())
      .sends(ack(10));
  // It holds for this name only, and the last one counts even if it fails.
  haggling.receives(set_contexts_request("three", {"base:allocation"})).sends(reply(10, err_unknown));
  goes(haggling, mode);
}

TEST_CASE("rule 35: in_shutdown_every_option_but_abort_is_answered_shutdown_in_every_mode",
          "[simple][structured][extended]") {
  agreed(each_mode())
      .shuts_down()
      .receives(go_request("one"))
      .sends(reply(7, err_shutdown))
      .receives(option_request(3))
      .sends(reply(3, err_shutdown))
      .receives(option_request(2))
      .sends(ack(2))
      .ends_with(closed());
}
