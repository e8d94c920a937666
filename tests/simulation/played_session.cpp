#include "tests/simulation/played_session.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

namespace aionbd::tests {

namespace {

constexpr std::size_t everything = std::size_t{1} << 20;

std::uint64_t kib(std::uint64_t count) {
  return count << 10U;
}

}  // namespace

storage::geometry stage::shape() const {
  using storage::geometry;
  const std::array<geometry, 4> shapes{
      // A sparse file with an odd end.
      geometry{.size = kib(4) + 100,
               .direct_end = kib(4),
               .alignment = 512,
               .zeroing_granularity = 1024,
               .may_have_holes = true,
               .can_punch_hole = true,
               .can_zero_range = true},
      // Zeroes have to be written.
      geometry{.size = kib(8), .direct_end = kib(8), .alignment = 4096, .zeroing_granularity = 4096},
      // A disk, with discard.
      geometry{.size = kib(4),
               .direct_end = kib(4),
               .alignment = 512,
               .zeroing_granularity = 512,
               .is_block_device = true,
               .can_zero_range = true,
               .can_discard = true},
      // Large enough for reads that leave out holes.
      geometry{.size = kib(80) + 7,
               .direct_end = kib(80),
               .alignment = 512,
               .zeroing_granularity = 4096,
               .may_have_holes = true,
               .can_punch_hole = true}};
  geometry shape = shapes[number_ % shapes.size()];
  shape.read_only = (number_ & 32U) != 0;
  return shape;
}

server::connection_limits stage::limits() const {
  server::connection_limits limits = simulated_server::patient();
  if ((number_ & 4U) != 0) {
    limits.session.requests_max = 3;
    limits.session.in_flight_bytes_max = kib(12);
  }
  return limits;
}

std::uint8_t schedule::next() {
  if (left_.empty()) return 0;
  const auto decision = std::to_integer<std::uint8_t>(left_.front());
  left_ = left_.subspan(1);
  return decision;
}

played_session::played_session(const stage& where, std::span<const std::byte> decisions,
                               std::span<const std::byte> said)
    : plan_(decisions),
      server_(
          where.shape(), 1, [this](std::uint64_t limit) { return plan_.choose(limit); }, where.limits()),
      said_(said.begin(), said.end()),
      expected_(agreement_on(said_, server_.exports.infos())),
      reader_(expected_.agreed),
      client_(server_.connect(0, where.send_buffer())) {
  server_.disk.short_counts(where.has_short_counts());
  if (expected_.enters_transmission) number_the_requests();
}

// Gives each request a cookie of its own, and tells the reader of those that must be answered: all that are
// complete, up to the one that ends the session.
void played_session::number_the_requests() {
  const protocol::reply_mode mode = expected_.agreed.replies;
  const std::size_t header = protocol::request_header_size(mode);
  std::span<std::byte> left = std::span(said_).subspan(expected_.consumed);
  for (std::uint64_t number = 1; left.size() >= header; ++number) {
    for (std::size_t i = 0; i < 8; ++i) left[8 + i] = static_cast<std::byte>(number >> (56 - 8 * i));
    auto asked = protocol::decode_request(left.first(header), mode);
    if (!asked || asked->what == protocol::command::disc) return;
    if (protocol::payload_is_past_all_limits(*asked, mode)) return;
    const std::uint64_t length = protocol::payload_length(*asked, mode);
    left = left.subspan(header);
    if (left.size() < length) return;
    const auto payload = left.first(length);
    left = left.subspan(length);
    const bool is_valid = protocol::validate(*asked, expected_.agreed) == protocol::error::none;
    if (is_valid && protocol::has_block_status_payload(*asked, mode)) {
      // What it says afterwards is what the request is; a refusal of it leaves the header's.
      auto told = *asked;
      const auto exact = payload.first<protocol::block_status_payload_size>();
      if (protocol::take_block_status_payload(told, exact, expected_.agreed) == protocol::error::none)
        asked = told;
    }
    reader_.asked(*asked);
  }
}

std::string played_session::play() {
  while (!plan_.is_over() && server_.connections() != 0) step(plan_.next());
  play_to_the_end();
  return verdict();
}

// The lower bits say what, the upper ones how much.
void played_session::step(std::uint8_t decision) {
  const unsigned much = decision >> 3U;
  switch (decision & 7U) {
    case 0:
      say(1 + much);
      return;
    case 1:
      say(std::size_t{64} << (much % 8));
      return;
    case 2:
    case 3:
      for (unsigned i = 0; i <= much && server_.loops[0].run_one(); ++i) {
      }
      return;
    case 4:
      for (unsigned i = 0; i <= much && server_.disk.step(); ++i) {
      }
      return;
    case 5:
      server_.loops[0].drain();
      return;
    case 6:
      hear(1 + much * much);
      return;
    default:
      return disturb(static_cast<std::uint8_t>(much));
  }
}

void played_session::disturb(std::uint8_t how) {
  using storage::io_op;
  switch (how) {
    case 0:
      was_stopped_ = true;
      if (const auto served = client_.served.lock()) served->stop();
      return;
    case 1:
      client_.end.say_no_more();
      sent_ = said_.size();
      hung_up_ = true;
      return;
    case 2:
      client_.end.close();
      sent_ = said_.size();
      hung_up_ = true;
      return;
    case 3:
      return server_.disk.refuse_all(io_op::punch_hole, EOPNOTSUPP);
    case 4:
      return server_.disk.refuse_all(io_op::zero_range, EOPNOTSUPP);
    case 5:
      return server_.disk.refuse_all(io_op::discard, EOPNOTSUPP);
    case 6:
      return server_.disk.fail_nth(io_op::sync, 0, EIO);
    case 7:
      return server_.disk.fail_nth(io_op::map, 0, EIO);
    default: {
      constexpr std::array<int, 4> errors{EIO, ENOSPC, ENOMEM, EDQUOT};
      return server_.disk.fail_nth_of_any(how / 4U - 2U, errors[how % 4U]);
    }
  }
}

bool played_session::say(std::size_t length) {
  if (sent_ == said_.size()) return false;
  const auto left = std::span<const std::byte>(said_).subspan(sent_);
  const std::size_t taken = client_.end.say(left.first(std::min(length, left.size())));
  sent_ += taken;
  return taken != 0;
}

bool played_session::hear(std::size_t length) {
  if (client_.end.is_closed()) return false;
  const byte_vector bytes = client_.end.hear(length);
  const std::size_t missing =
      expected_.answered.size() - std::min(expected_.answered.size(), heard_of_handshake_.size());
  const std::size_t of_handshake =
      expected_.enters_transmission ? std::min(missing, bytes.size()) : bytes.size();
  const auto border = bytes.begin() + static_cast<std::ptrdiff_t>(of_handshake);
  heard_of_handshake_.insert(heard_of_handshake_.end(), bytes.begin(), border);
  // A server that stops in the middle of the handshake says other things, and nothing else is to come.
  if (was_stopped_ && heard_of_handshake_ != expected_.answered) return !bytes.empty();
  reader_.heard(std::span(bytes).subspan(of_handshake));
  for (answer& each : reader_.take_answers()) answers_.push_back(std::move(each));
  return !bytes.empty();
}

void played_session::play_to_the_end() {
  bool said_goodbye = false;
  while (server_.connections() != 0 || !(client_.end.is_closed() || client_.end.is_at_end())) {
    bool moved = say(everything);
    moved |= server_.settle();
    moved |= hear(everything);
    if (moved || client_.end.is_at_end()) continue;
    if (!std::exchange(said_goodbye, true)) {
      if (!client_.end.is_closed()) client_.end.say_no_more();
      continue;
    }
    hangs_ = server_.connections() != 0;
    break;
  }
  // Handlers that were cancelled.
  server_.settle();
}

std::string played_session::verdict() const {
  if (hangs_) return "the server waits for something that does not come";
  if (const std::string left = server_.leftovers(); !left.empty()) return left;
  if (!reader_.complaint().empty()) return reader_.complaint();
  if (was_stopped_ || hung_up_) return {};
  if (heard_of_handshake_ != expected_.answered) return "another answer to the handshake than its own";
  if (reader_.is_in_the_middle_of_a_reply()) return "an end in the middle of a reply";
  if (reader_.unanswered() != 0) return "a request without a reply";
  return verdict_on_answers();
}

// Without failures of the disk, what is valid succeeds; and what is not is refused as validate() says.
std::string played_session::verdict_on_answers() const {
  for (const answer& each : answers_) {
    const auto refusal = protocol::validate(each.asked, expected_.agreed);
    const bool may_fail = server_.disk.failures_injected() != 0 ||
                          (each.asked.flags & protocol::command_flag::fast_zero) != 0 ||
                          each.asked.what == protocol::command::block_status;
    if (refusal == protocol::error::none && each.error != 0 && !may_fail)
      return "a valid request that failed";
    if (refusal != protocol::error::none && each.error != static_cast<std::uint32_t>(refusal)) {
      return "a refusal with another error than validate()'s";
    }
  }
  return {};
}

}  // namespace aionbd::tests
