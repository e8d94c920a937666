// STARTTLS under all three policies: rules 2 and 8 to 11. Every script is also played cut at every byte; see
// conversation.hpp.
#include <string>
#include <vector>

#include "protocol/handshake.hpp"
#include "tests/protocol/conversation.hpp"

using namespace aionbd::protocol;
using namespace aionbd::tests;

namespace {

constexpr std::uint32_t abort_ = 2, list = 3, starttls = 5, go = 7, structured = 8, set_contexts = 10,
                        extended = 11;
// Everything that an option may be, STARTTLS and ABORT excepted; some are unknown.
const std::vector<std::uint32_t> others = {0, 3, 4, 6, 7, 8, 9, 10, 11, 12, 99, 0xffffffff};

const std::vector<export_info> disks = {
    {"disk", "A disk", 1U << 20U, transmission_flag::has_flags | transmission_flag::send_flush}};

constexpr handshake_offers offers(tls_policy tls) {
  return {true, true, true, tls};
}

script open_script(tls_policy tls, std::uint32_t flags = 3, handshake_limits limits = {}) {
  script result(disks, limits, offers(tls));
  result.receives(flags_request(flags));
  return result;
}

script secured_script(tls_policy tls, std::uint32_t flags = 3) {
  script result = open_script(tls, flags);
  result.receives(option_request(starttls)).sends(ack(starttls)).starts_tls();
  return result;
}

constexpr std::initializer_list<tls_policy> with_tls = {tls_policy::allowed, tls_policy::required};
constexpr std::initializer_list<tls_policy> every_policy = {tls_policy::off, tls_policy::allowed,
                                                            tls_policy::required};

// A client that has said its flags, and then all of this at once: what the server does.
handshake::action answer_to(const byte_vector& said, tls_policy tls, byte_vector& output) {
  handshake under_test(disks, {}, offers(tls));
  REQUIRE(under_test.resume({}).what == handshake::step::send);
  REQUIRE(under_test.resume(flags_request(3)).what == handshake::step::need_bytes);
  const handshake::action result = under_test.resume(said);
  output = exact_copy(under_test.output());
  return result;
}

}  // namespace

TEST_CASE("rule 9: without_tls_starttls_is_unsupported_and_nothing_changes") {
  open_script(tls_policy::off)
      .receives(option_request(structured))
      .sends(ack(structured))
      .receives(option_request(starttls))
      .sends(reply(starttls, err_unsup))
      .receives(option_request(starttls, packet().text("data")))
      .sends(reply(starttls, err_unsup))
      .receives(go_request("disk"))
      .sends(described(go, disks[0], transmission_flag::send_df))
      .sends(ack(go))
      .ends_with(entered_with(reply_mode::structured, "disk"));
}

TEST_CASE("rule 9: starttls_is_acknowledged_and_what_follows_comes_through_tls") {
  for (const tls_policy tls : with_tls) {
    secured_script(tls).ends_with(waiting());
    secured_script(tls)
        .receives(go_request("disk"))
        .sends(described(go, disks[0]))
        .sends(ack(go))
        .ends_with(entered("disk"));
    secured_script(tls)
        .receives(export_name_request("disk"))
        .sends(packet().u64(disks[0].size).u16(disks[0].flags))
        .ends_with(entered("disk"));
  }
}

TEST_CASE("rule 9: starttls_with_data_is_invalid_and_may_be_asked_again") {
  for (const tls_policy tls : with_tls) {
    for (const std::size_t length : {std::size_t{1}, std::size_t{70'000}}) {
      open_script(tls)
          .receives(option_request(starttls, packet().zeroes(length)))
          .sends(reply(starttls, err_invalid))
          .receives(option_request(starttls))
          .sends(ack(starttls))
          .starts_tls()
          .receives(go_request("disk"))
          .sends(described(go, disks[0]))
          .sends(ack(go))
          .ends_with(entered("disk"));
    }
  }
}

TEST_CASE("rule 9: a_second_starttls_is_invalid") {
  for (const tls_policy tls : with_tls) {
    secured_script(tls)
        .receives(option_request(starttls))
        .sends(reply(starttls, err_invalid))
        .receives(option_request(starttls, packet().text("data")))
        .sends(reply(starttls, err_invalid))
        .receives(go_request("disk"))
        .sends(described(go, disks[0]))
        .sends(ack(go))
        .ends_with(entered("disk"));
  }
}

TEST_CASE("rule 9: reply_modes_agreed_in_clear_text_are_forgotten") {
  for (const std::uint32_t option : {structured, extended}) {
    open_script(tls_policy::allowed)
        .receives(option_request(option))
        .sends(ack(option))
        .receives(option_request(starttls))
        .sends(ack(starttls))
        .starts_tls()
        .receives(go_request("disk"))
        .sends(described(go, disks[0]))
        .sends(ack(go))
        .ends_with(entered("disk"));
    // They may be agreed again: asking is no repetition, and STRUCTURED_REPLY is not ruled out any more.
    for (const std::uint32_t again : {structured, extended}) {
      open_script(tls_policy::allowed)
          .receives(option_request(option))
          .sends(ack(option))
          .receives(option_request(starttls))
          .sends(ack(starttls))
          .starts_tls()
          .receives(option_request(again))
          .sends(ack(again))
          .ends_with(waiting());
    }
  }
}

TEST_CASE("rule 9: contexts_chosen_in_clear_text_are_forgotten") {
  open_script(tls_policy::allowed)
      .receives(option_request(structured))
      .sends(ack(structured))
      .receives(set_contexts_request("disk", {"base:allocation"}))
      .sends(allocation_set())
      .sends(ack(set_contexts))
      .receives(option_request(starttls))
      .sends(ack(starttls))
      .starts_tls()
      .receives(option_request(structured))
      .sends(ack(structured))
      .receives(go_request("disk"))
      .sends(described(go, disks[0], transmission_flag::send_df))
      .sends(ack(go))
      .ends_with(entered_with(reply_mode::structured, "disk", false));
}

// The client's flags are said once, ahead of every option.
TEST_CASE("rule 9: the_clients_flags_outlive_starttls") {
  secured_script(tls_policy::required, client_flag::fixed_newstyle)
      .receives(export_name_request("disk"))
      .sends(packet().u64(disks[0].size).u16(disks[0].flags).zeroes(124))
      .ends_with(entered("disk", false));
}

TEST_CASE("rule 9: bytes_read_ahead_of_the_tls_hello_end_the_connection") {
  for (const tls_policy tls : with_tls) {
    for (const byte_vector& injected :
         {byte_vector(1), option_request(list), go_request("disk"), byte_vector(100'000)}) {
      byte_vector output;
      const auto next = answer_to(joined(option_request(starttls), injected), tls, output);
      CHECK(next.what == handshake::step::close);
      CHECK(next.why == protocol_errc::bytes_ahead_of_tls);
      CHECK(output.empty());
    }
    byte_vector output;
    CHECK(answer_to(option_request(starttls), tls, output).what == handshake::step::start_tls);
    CHECK(output == ack(starttls));
  }
}

TEST_CASE("CVE-2021-3716: options_injected_behind_starttls_are_not_answered_through_tls") {
  byte_vector output;
  const auto next =
      answer_to(joined(option_request(starttls), option_request(structured)), tls_policy::allowed, output);
  CHECK(next.what == handshake::step::close);
  CHECK(output.empty());
}

// Without TLS what follows STARTTLS is just the next option.
TEST_CASE("rule 9: options_behind_a_refused_starttls_are_answered") {
  open_script(tls_policy::off)
      .receives(option_request(starttls))
      .sends(reply(starttls, err_unsup))
      .receives(option_request(structured))
      .sends(ack(structured))
      .ends_with(waiting());
}

TEST_CASE("rule 10: required_tls_is_asked_for_by_every_option_but_starttls_and_abort") {
  for (const std::uint32_t option : others) {
    for (const byte_vector& data : {byte_vector{}, query_data("disk", {}), byte_vector(20'000)}) {
      open_script(tls_policy::required)
          .receives(option_request(option, data))
          .sends(reply(option, err_tls_reqd))
          .receives(option_request(starttls))
          .sends(ack(starttls))
          .starts_tls()
          .receives(go_request("disk"))
          .sends(described(go, disks[0]))
          .sends(ack(go))
          .ends_with(entered("disk"));
    }
  }
}

TEST_CASE("rule 10: where_tls_is_required_export_name_without_it_closes") {
  for (const std::string& name : {std::string("disk"), std::string(), std::string("nowhere")}) {
    open_script(tls_policy::required)
        .receives(export_name_request(name))
        .ends_with(dropped(protocol_errc::export_name_without_tls));
  }
  // A client without fixed newstyle has no other way in.
  open_script(tls_policy::required, 0)
      .receives(export_name_request("disk"))
      .ends_with(dropped(protocol_errc::export_name_without_tls));
  open_script(tls_policy::required, 0)
      .receives(option_request(starttls))
      .ends_with(dropped(protocol_errc::fixed_newstyle_required));
}

TEST_CASE("rule 10: nothing_but_required_tls_is_ever_answered_tls_reqd") {
  const auto sends_as_ever = [](script from) {
    from.receives(option_request(99))
        .sends(reply(99, err_unsup))
        .receives(option_request(list))
        .sends(listed("disk", "A disk"))
        .sends(ack(list))
        .receives(info_request("nowhere"))
        .sends(reply(6, err_unknown))
        .receives(export_name_request("nowhere"))
        .ends_with(dropped(protocol_errc::unknown_export));
  };
  sends_as_ever(open_script(tls_policy::off));
  sends_as_ever(open_script(tls_policy::allowed));
  sends_as_ever(secured_script(tls_policy::allowed));
  sends_as_ever(secured_script(tls_policy::required));
}

TEST_CASE("rule 8: abort_is_acknowledged_under_every_policy") {
  for (const tls_policy tls : every_policy) {
    open_script(tls).receives(option_request(abort_)).sends(ack(abort_)).ends_with(closed());
    if (tls == tls_policy::off) continue;
    secured_script(tls).receives(option_request(abort_)).sends(ack(abort_)).ends_with(closed());
  }
}

TEST_CASE("rule 8: list_with_data_is_invalid_before_and_behind_tls") {
  for (const tls_policy tls : every_policy) {
    open_script(tls)
        .receives(option_request(list, packet().text("x")))
        .sends(reply(list, tls == tls_policy::required ? err_tls_reqd : err_invalid))
        .ends_with(waiting());
  }
  secured_script(tls_policy::required)
      .receives(option_request(list, packet().text("x")))
      .sends(reply(list, err_invalid))
      .ends_with(waiting());
}

TEST_CASE("rule 11: modes_are_agreed_behind_tls_as_they_are_without") {
  secured_script(tls_policy::required)
      .receives(option_request(structured, packet().text("x")))
      .sends(reply(structured, err_invalid))
      .receives(option_request(extended))
      .sends(ack(extended))
      .receives(option_request(extended))
      .sends(reply(extended, err_invalid))
      .receives(option_request(structured))
      .sends(reply(structured, err_ext_header_reqd))
      .receives(export_name_request("disk"))
      .ends_with(dropped(protocol_errc::export_name_with_extended_headers));
}

TEST_CASE("rule 11: modes_are_not_agreed_where_tls_is_required_and_lacking") {
  open_script(tls_policy::required)
      .receives(option_request(structured))
      .sends(reply(structured, err_tls_reqd))
      .receives(option_request(starttls))
      .sends(ack(starttls))
      .starts_tls()
      .receives(option_request(structured))
      .sends(ack(structured))
      .ends_with(waiting());
}

TEST_CASE("rule 2: options_before_and_behind_tls_count_together") {
  handshake_limits three;
  three.options_max = 3;
  open_script(tls_policy::required, 3, three)
      .receives(option_request(list))
      .sends(reply(list, err_tls_reqd))
      .receives(option_request(starttls))
      .sends(ack(starttls))
      .starts_tls()
      .receives(option_request(list))
      .sends(listed("disk", "A disk"))
      .sends(ack(list))
      .receives(option_request(list))
      .ends_with(dropped(protocol_errc::option_limit));
}

TEST_CASE("rule 35: in_a_shutdown_starttls_is_answered_shutdown") {
  for (const tls_policy tls : with_tls) {
    open_script(tls)
        .shuts_down()
        .receives(option_request(starttls))
        .sends(reply(starttls, err_shutdown))
        .receives(option_request(abort_))
        .sends(ack(abort_))
        .ends_with(closed());
    secured_script(tls)
        .shuts_down()
        .receives(go_request("disk"))
        .sends(reply(go, err_shutdown))
        .receives(export_name_request("disk"))
        .ends_with(closed());
  }
}
