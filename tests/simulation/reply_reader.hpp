// What a server says in transmission, read as its client reads it and held against the specification: magics,
// headers and payloads of the agreed mode, chunks that belong together, nothing that was not asked for,
// nothing twice. It knows the numbers of the protocol by itself, so that it and protocol/ check each other.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "protocol/requests.hpp"
#include "protocol/terms.hpp"
#include "tests/protocol/bytes.hpp"

namespace aionbd::tests {

// A request and all of its reply.
struct answer {
  protocol::request asked;
  std::uint32_t error = 0;
  std::optional<std::uint64_t> failed_at;  // ERROR_OFFSET's
  byte_vector data;                        // of a READ that succeeded
};

class reply_reader {
 public:
  // `agreed` and its export must outlive the reader.
  explicit reply_reader(const protocol::terms& agreed) : agreed_(agreed) {}

  // Before its reply is heard. Cookies must differ.
  void asked(const protocol::request& request) { open_[request.cookie].whole.asked = request; }
  // The bytes that came next.
  void heard(std::span<const std::byte> bytes);

  // Those that are complete, in the order of their last bytes; each is given once.
  std::vector<answer> take_answers() { return std::exchange(answers_, {}); }
  std::size_t unanswered() const { return open_.size(); }
  bool is_in_the_middle_of_a_reply() const { return !unread_.empty(); }

  // What was wrong first; empty while all is well.
  const std::string& complaint() const { return complaint_; }

 private:
  struct open_reply {
    answer whole;
    std::map<std::uint64_t, std::uint64_t> content;  // of a READ: offset -> length of what was told
  };
  using bytes = std::span<const std::byte>;

  // Each returns the length of what it took, 0 when bytes are missing.
  std::size_t take_next(bytes from);
  std::size_t take_simple(bytes from);
  std::size_t take_chunk(bytes from);

  void take_content(open_reply& reply, std::uint64_t type, bytes payload);
  void take_status(const open_reply& reply, std::uint64_t type, bytes payload);
  void take_error(open_reply& reply, std::uint64_t type, bytes payload);
  void check_error(const open_reply& reply);
  void finish(open_reply& reply);
  open_reply* find(std::uint64_t cookie);
  void require(bool holds, const char* otherwise) {
    if (!holds && complaint_.empty()) complaint_ = otherwise;
  }

  const protocol::terms& agreed_;
  byte_vector unread_;
  std::map<std::uint64_t, open_reply> open_;  // by cookie
  std::vector<answer> answers_;
  std::string complaint_;
};

}  // namespace aionbd::tests
