#include "tests/simulation/simulated_client.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

namespace aionbd::tests {

namespace {

using protocol::reply_mode;

constexpr std::size_t much = std::size_t{1} << 20;

byte_vector greeting(reply_mode mode, const std::string& name) {
  const auto option = [](std::uint32_t number, const byte_vector& data) -> byte_vector {
    return packet().text("IHAVEOPT").u32(number).u32(data.size()).append(data);
  };
  packet said;
  said.u32(3);
  if (mode == reply_mode::structured) said.append(option(8, {}));
  if (mode == reply_mode::extended) said.append(option(11, {}));
  if (mode != reply_mode::simple) {
    said.append(option(10, packet().u32(name.size()).text(name).u32(1).u32(15).text("base:allocation")));
  }
  return said.append(option(7, packet().u32(name.size()).text(name).u16(0)));
}

}  // namespace

simulated_client::simulated_client(simulated_server& server, const client_settings& settings)
    : server_(server),
      to_say_(greeting(settings.replies, settings.asks_for)),
      agreed_(agreement_on(to_say_, server.exports.infos())),
      reader_(agreed_.agreed),
      stream_(server.connect(settings.loop_number, settings.send_buffer)),
      handshake_left_(agreed_.answered.size()) {}

std::uint64_t simulated_client::ask(protocol::request what, std::span<const std::byte> payload) {
  what.cookie = ++last_cookie_;
  if (what.what == protocol::command::write) {
    what.length = payload.size();
    if (mode() == reply_mode::extended) what.flags |= protocol::command_flag::payload_len;
  }
  reader_.asked(what);
  say_later(what);
  to_say_.insert(to_say_.end(), payload.begin(), payload.end());
  return what.cookie;
}

void simulated_client::say_goodbye() {
  say_later({.what = protocol::command::disc});
}

void simulated_client::say_later(const protocol::request& what) {
  std::array<std::byte, protocol::extended_request_size> header{};
  protocol::encode_request(header, what, mode());
  const auto length = static_cast<std::ptrdiff_t>(protocol::request_header_size(mode()));
  to_say_.insert(to_say_.end(), header.begin(), header.begin() + length);
}

bool simulated_client::say(std::size_t length) {
  const std::size_t taken = stream_.end.say(std::span(to_say_).first(std::min(length, to_say_.size())));
  to_say_.erase(to_say_.begin(), to_say_.begin() + static_cast<std::ptrdiff_t>(taken));
  return taken != 0;
}

bool simulated_client::hear(std::size_t length) {
  const byte_vector heard = stream_.end.hear(length);
  const std::size_t of_handshake = std::min(handshake_left_, heard.size());
  handshake_left_ -= of_handshake;
  reader_.heard(std::span(heard).subspan(of_handshake));
  return !heard.empty();
}

answer simulated_client::answer_to(const protocol::request& what, std::span<const std::byte> payload) {
  ask(what, payload);
  return all_answers().back();
}

std::vector<answer> simulated_client::all_answers() {
  for (bool moved = true; moved;) {
    moved = say(much);
    moved |= server_.settle();
    moved |= hear(much);
  }
  if (!complaint().empty()) throw std::runtime_error(complaint());
  if (unanswered() != 0) throw std::runtime_error("a request without a reply");
  return take_answers();
}

}  // namespace aionbd::tests
