// Handshakes as scripts: script(exports).receives(...).sends(...).ends_with(...).
// ends_with() plays the script as written, then again cut in two at every byte and fed one byte at a time;
// every way must give the same output and the same end, and no answer may come before all of its option's
// data was received. The sentences of option errors are checked to be there and to be well-formed, then left
// out of the comparison.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "protocol/error.hpp"
#include "protocol/handshake.hpp"
#include "protocol/text.hpp"
#include "tests/protocol/bytes.hpp"
#include "tests/support/catch.hpp"

namespace aionbd::tests {

using protocol::handshake;

// What a client sends.
inline byte_vector flags_request(std::uint32_t flags) {
  return packet().u32(flags);
}

inline byte_vector option_request(std::uint32_t option, const byte_vector& data = {}) {
  return packet().u64(0x49484156454f5054).u32(option).u32(data.size()).append(data);
}

inline byte_vector export_name_request(std::string_view name) {
  return option_request(1, packet().text(name));
}

inline byte_vector query_data(std::string_view name, const std::vector<std::uint16_t>& infos) {
  packet data;
  data.u32(name.size()).text(name).u16(infos.size());
  for (const std::uint16_t each : infos) data.u16(each);
  return data;
}

inline byte_vector info_request(std::string_view name, const std::vector<std::uint16_t>& infos = {}) {
  return option_request(6, query_data(name, infos));
}

inline byte_vector go_request(std::string_view name, const std::vector<std::uint16_t>& infos = {}) {
  return option_request(7, query_data(name, infos));
}

// The data of LIST_META_CONTEXT (9) and SET_META_CONTEXT (10), and the two with it.
inline byte_vector context_data(std::string_view name, const std::vector<std::string>& queries) {
  packet data;
  data.u32(name.size()).text(name).u32(queries.size());
  for (const std::string& each : queries) data.u32(each.size()).text(each);
  return data;
}

inline byte_vector list_contexts_request(std::string_view name, const std::vector<std::string>& queries) {
  return option_request(9, context_data(name, queries));
}

inline byte_vector set_contexts_request(std::string_view name, const std::vector<std::string>& queries) {
  return option_request(10, context_data(name, queries));
}

// What the server sends. Error replies are written without their sentence.
inline byte_vector server_greeting() {
  return packet().u64(0x4e42444d41474943).u64(0x49484156454f5054).u16(3);
}

inline byte_vector reply(std::uint32_t option, std::uint32_t what, const byte_vector& data = {}) {
  return packet().u64(0x0003e889045565a9).u32(option).u32(what).u32(data.size()).append(data);
}

inline byte_vector ack(std::uint32_t option) {
  return reply(option, 1);
}

inline byte_vector listed(std::string_view name, std::string_view description = {}) {
  return reply(3, 2, packet().u32(name.size()).text(name).text(description));
}

inline byte_vector described(std::uint32_t option, const protocol::export_info& offered,
                             unsigned more_flags = 0) {
  return reply(option, 3, packet().u16(0).u64(offered.size).u16(offered.flags | more_flags));
}

// LIST's answers have the id 0, SET's the one that BLOCK_STATUS is answered with.
inline byte_vector allocation_listed() {
  return reply(9, 4, packet().u32(0).text("base:allocation"));
}
inline byte_vector allocation_set() {
  return reply(10, 4, packet().u32(1).text("base:allocation"));
}

inline constexpr std::uint32_t err_unsup = 0x80000001, err_invalid = 0x80000003, err_unknown = 0x80000006,
                               err_tls_reqd = 0x80000005, err_shutdown = 0x80000007, err_too_big = 0x80000009,
                               err_ext_header_reqd = 0x8000000a;

// An export of 1 MiB that can be flushed.
inline protocol::export_info plain_disk(std::string name) {
  protocol::export_info result;
  result.name = std::move(name);
  result.size = 1U << 20U;
  result.flags = protocol::transmission_flag::has_flags | protocol::transmission_flag::send_flush;
  return result;
}

// How a conversation ends.
struct ending {
  handshake::step what = handshake::step::need_bytes;
  std::error_code why;
  std::string chosen;
  bool no_zeroes = false;
  bool block_sizes_requested = false;
  byte_vector unconsumed;  // Requests that the client sent along with its last option.
  protocol::reply_mode replies = protocol::reply_mode::simple;
  bool allocation_selected = false;

  bool operator==(const ending&) const = default;
};

inline ending waiting() {
  return {};
}
inline ending dropped(std::error_code why) {
  ending result;
  result.what = handshake::step::close;
  result.why = why;
  return result;
}
inline ending closed() {
  return dropped({});
}

inline ending entered(std::string chosen, bool no_zeroes = true, bool block_sizes_requested = false,
                      byte_vector unconsumed = {}) {
  ending result;
  result.what = handshake::step::enter_transmission;
  result.chosen = std::move(chosen);
  result.no_zeroes = no_zeroes;
  result.block_sizes_requested = block_sizes_requested;
  result.unconsumed = std::move(unconsumed);
  return result;
}

// Entered with GO and NO_ZEROES, and with more than simple replies.
inline ending entered_with(protocol::reply_mode replies, std::string chosen,
                           bool allocation_selected = false) {
  ending result = entered(std::move(chosen));
  result.replies = replies;
  result.allocation_selected = allocation_selected;
  return result;
}

// Cuts the sentence out of every error reply, once it is known to be one. `output` starts with the greeting.
inline byte_vector without_sentences(const byte_vector& output) {
  constexpr std::size_t header = protocol::option_reply_header_size;
  const std::size_t start = std::min(output.size(), protocol::greeting_size);
  byte_vector kept(output.begin(), output.begin() + static_cast<std::ptrdiff_t>(start));
  auto left = std::span(output).subspan(start);
  while (left.size() >= header) {
    const auto found = protocol::decode_option_reply_header(left.first<header>());
    if (!found) break;
    const byte_vector data = exact_copy(left.subspan(header, found->length));
    left = left.subspan(header + found->length);
    const auto what = static_cast<std::uint32_t>(found->what);
    const bool is_error = (what & 0x80000000U) != 0;
    if (is_error) {
      std::string sentence;
      for (const std::byte each : data) sentence.push_back(static_cast<char>(each));
      if (sentence.empty() || !protocol::is_well_formed(sentence))
        FAIL("not a sentence for people: " << sentence);
    }
    kept = joined(kept, reply(static_cast<std::uint32_t>(found->to), what, is_error ? byte_vector{} : data));
  }
  kept.insert(kept.end(), left.begin(), left.end());
  return kept;
}

class script {
 public:
  explicit script(std::span<const protocol::export_info> exports, protocol::handshake_limits limits = {},
                  protocol::handshake_offers offers = {})
      : exports_(exports), limits_(limits), offers_(offers) {
    turns_.push_back({{}, server_greeting()});
  }

  script& receives(const byte_vector& bytes) {
    turns_.push_back({bytes, {}});
    return *this;
  }

  script& sends(const byte_vector& bytes) {
    turns_.back().sent = joined(turns_.back().sent, bytes);
    return *this;
  }

  // The server begins to shut down after what was said so far.
  script& shuts_down() {
    turns_.push_back({{}, {}, true});
    return *this;
  }

  // What was said last begins TLS: the server is never given these bytes together with those that follow.
  script& starts_tls() {
    turns_.back().starts_tls = true;
    return *this;
  }

  void ends_with(const ending& expected) const {
    std::vector<std::size_t> turn_ends;
    for (const turn& each : turns_)
      turn_ends.push_back((turn_ends.empty() ? 0 : turn_ends.back()) + each.received.size());
    play(turn_ends, expected);
    const std::size_t length = turn_ends.back();
    // Every byte of short conversations; of long ones, those around every turn and some in between.
    const std::size_t stride = 1 + length / 2000;
    std::vector<std::size_t> everywhere;
    for (std::size_t cut = 0; cut <= length; ++cut) {
      const bool near_turn = std::any_of(turn_ends.begin(), turn_ends.end(),
                                         [&](std::size_t end) { return cut + 20 > end && cut < end + 20; });
      if (cut % stride == 0 || near_turn) everywhere.push_back(cut);
    }
    for (const std::size_t cut : everywhere) play({cut, length}, expected);
    play(everywhere, expected);
  }

 private:
  struct turn {
    byte_vector received;
    byte_vector sent;
    bool shuts_down = false;
    bool starts_tls = false;
  };

  // What must have been said once `received` bytes have arrived.
  [[nodiscard]] byte_vector expected_output(std::size_t received) const {
    byte_vector result;
    std::size_t end = 0;
    for (const turn& each : turns_) {
      end += each.received.size();
      if (end > received) break;
      result = joined(result, each.sent);
    }
    return result;
  }

  void play(std::vector<std::size_t> cuts, const ending& expected) const {
    byte_vector all;
    std::vector<std::size_t> shutdowns;
    std::vector<std::size_t> upgrades;
    for (const turn& each : turns_) {
      all = joined(all, each.received);
      if (each.shuts_down) shutdowns.push_back(all.size());
      if (each.starts_tls) upgrades.push_back(all.size());
    }
    cuts.insert(cuts.end(), shutdowns.begin(), shutdowns.end());
    cuts.insert(cuts.end(), upgrades.begin(), upgrades.end());
    cuts.push_back(all.size());
    std::sort(cuts.begin(), cuts.end());

    handshake under_test(exports_, limits_, offers_);
    byte_vector output;
    std::optional<ending> end;
    std::size_t fed = 0, upgraded = 0;
    feed(under_test, {}, output, end, upgraded);
    for (const std::size_t cut : cuts) {
      const auto piece = std::span(all).subspan(fed, cut - fed);
      if (end) {
        end->unconsumed = joined(end->unconsumed, exact_copy(piece));
      } else {
        feed(under_test, exact_copy(piece), output, end, upgraded);
      }
      fed = cut;
      if (std::find(shutdowns.begin(), shutdowns.end(), cut) != shutdowns.end()) under_test.shut_down();
      if (without_sentences(output) != expected_output(fed))
        FAIL("other output than expected after byte " << fed);
      const auto due = std::upper_bound(upgrades.begin(), upgrades.end(), fed) - upgrades.begin();
      if (upgraded != static_cast<std::size_t>(due)) FAIL("other upgrades than expected after byte " << fed);
    }
    if (!end) end.emplace();
    CAPTURE(end->what, end->why.message(), end->chosen, end->unconsumed.size());
    if (end->what == handshake::step::close) end->unconsumed.clear();
    REQUIRE((*end == expected));
  }

  // What a connection does with the actions, without a socket.
  static void feed(handshake& under_test, std::span<const std::byte> piece, byte_vector& output,
                   std::optional<ending>& end, std::size_t& upgraded) {
    for (;;) {
      const handshake::action next = under_test.resume(piece);
      if (next.consumed > piece.size()) FAIL("consumed more than was received");
      piece = piece.subspan(next.consumed);
      output = joined(output, exact_copy(under_test.output()));
      if (next.what == handshake::step::send) continue;
      if (next.what == handshake::step::start_tls) {
        if (!piece.empty()) FAIL("starts TLS with bytes left over");
        ++upgraded;
        continue;
      }
      if (next.what == handshake::step::need_bytes) {
        if (!piece.empty()) FAIL("wants more bytes while some are left");
        if (!under_test.output().empty()) FAIL("output that nobody was told to send");
        return;
      }
      const bool is_entered = next.what == handshake::step::enter_transmission;
      end = is_entered ? entered_as(under_test.agreed(), exact_copy(piece)) : dropped(next.why);
      if (under_test.resume(piece).what != next.what) FAIL("an end that does not last");
      return;
    }
  }

  static ending entered_as(const protocol::terms& agreed, byte_vector unconsumed) {
    ending result =
        entered(agreed.chosen->name, agreed.no_zeroes, agreed.block_sizes_requested, std::move(unconsumed));
    result.replies = agreed.replies;
    result.allocation_selected = agreed.allocation_selected;
    return result;
  }

  std::span<const protocol::export_info> exports_;
  protocol::handshake_limits limits_;
  protocol::handshake_offers offers_;
  std::vector<turn> turns_;
};

}  // namespace aionbd::tests
