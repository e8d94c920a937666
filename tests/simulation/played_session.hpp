// One client that says given bytes to a simulated server, step by step as a schedule has it, and the judge of
// what comes back: the handshake's own answer, then replies as reply_reader wants them, each request answered
// once and none after a DISC, and nothing left behind. For the fuzzer, and for conversations written down.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/protocol/bytes.hpp"
#include "tests/simulation/reply_reader.hpp"
#include "tests/simulation/simulated_server.hpp"

namespace aionbd::tests {

// Where and how a session is played; one byte says it all, so that a fuzzer may choose.
struct stage {
  explicit stage(std::uint8_t number) : number_(number) {}
  storage::geometry shape() const;
  server::connection_limits limits() const;
  int send_buffer() const { return (number_ & 8U) != 0 ? 1 : 0; }
  bool has_short_counts() const { return (number_ & 16U) != 0; }

 private:
  std::uint8_t number_;
};

// A byte for each decision: what happens next, and how the disk behaves. When it is used up, everything
// happens at once and whole.
class schedule {
 public:
  explicit schedule(std::span<const std::byte> decisions) : left_(decisions) {}
  bool is_over() const { return left_.empty(); }
  std::uint8_t next();
  std::uint64_t choose(std::uint64_t limit) { return is_over() ? limit - 1 : next() % limit; }

 private:
  std::span<const std::byte> left_;
};

class played_session {
 public:
  played_session(const stage& where, std::span<const std::byte> decisions, std::span<const std::byte> said);

  // Empty, or what was wrong first.
  std::string play();

  // In the order they came.
  const std::vector<answer>& answers() const { return answers_; }

 private:
  void number_the_requests();
  void step(std::uint8_t decision);
  void disturb(std::uint8_t how);
  bool say(std::size_t length);
  bool hear(std::size_t length);
  void play_to_the_end();
  std::string verdict() const;
  std::string verdict_on_answers() const;

  schedule plan_;
  simulated_server server_;
  byte_vector said_;
  agreement expected_;
  reply_reader reader_;
  simulated_server::client client_;

  std::size_t sent_ = 0;
  byte_vector heard_of_handshake_;
  std::vector<answer> answers_;
  bool was_stopped_ = false;
  bool hung_up_ = false;  // without having heard everything
  bool hangs_ = false;
};

}  // namespace aionbd::tests
