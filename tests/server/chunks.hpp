// Structured and extended replies as the tests read them: chunk after chunk until one says DONE, each checked
// against what the specification says of all chunks of its kind.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "protocol/terms.hpp"
#include "tests/server/client.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"

namespace aionbd::tests {

using protocol::reply_mode;

namespace nbd {
inline constexpr std::uint16_t chunk_none = 0, chunk_data = 1, chunk_hole = 2, chunk_status = 5,
                               chunk_status_ext = 6, chunk_error = 0x8001, chunk_error_offset = 0x8002;
inline constexpr std::uint32_t eoverflow = 75;
inline constexpr std::uint32_t is_hole = 1, is_zero = 2;
}  // namespace nbd

struct chunk {
  std::uint16_t flags = 0;
  std::uint16_t type = 0;
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;  // extended: the request's
  byte_vector payload;
};

// One extent of an answer to BLOCK_STATUS, or one piece of a READ.
struct piece {
  std::uint64_t length = 0;
  std::uint64_t flags = 0;
  friend bool operator==(const piece&, const piece&) = default;
};
using pieces = std::vector<piece>;

// All chunks of one request's reply.
struct chunked_reply {
  std::vector<chunk> chunks;

  std::uint32_t error() const;  // of the last chunk, or ok
  std::string text() const;     // of the error
  // Success without anything else.
  bool is_plain_success() const { return chunks.size() == 1 && chunks[0].type == nbd::chunk_none; }

  // Of a READ: its bytes, and what was data (0) and what a hole. The test fails unless the chunks are the
  // range exactly.
  std::pair<byte_vector, pieces> data(std::uint64_t offset, std::size_t length) const;
  // Of a BLOCK_STATUS.
  pieces extents() const;
};

class chunk_client {
 public:
  chunk_client(served_session& with, reply_mode mode) : peer_(with.peer), mode_(mode) {}

  byte_vector header(std::uint16_t command, std::uint64_t cookie, std::uint64_t offset, std::uint64_t length,
                     std::uint16_t flags = 0) const;
  // With PAYLOAD_LEN where it belongs.
  byte_vector write(std::uint64_t cookie, std::uint64_t offset, const byte_vector& payload,
                    std::uint16_t flags = 0) const;

  void send(const byte_vector& bytes) { peer_.send(bytes); }
  // The next reply; `asked` is what it has to answer. Replies of different requests must not be mixed up.
  chunked_reply receive(std::uint64_t cookie, std::uint64_t asked_offset);

  chunked_reply ask(std::uint16_t command, std::uint64_t offset, std::uint64_t length,
                    std::uint16_t flags = 0);
  chunked_reply ask_to_write(std::uint64_t offset, const byte_vector& payload, std::uint16_t flags = 0);
  byte_vector read(std::uint64_t offset, std::size_t length);

  reply_mode mode() const { return mode_; }

 private:
  chunk receive_chunk();

  client& peer_;
  reply_mode mode_;
  std::uint64_t last_cookie_ = 0x1234'5678'9abc'0000;
};

std::uint64_t number_at(const byte_vector& bytes, std::size_t offset, std::size_t octets);

}  // namespace aionbd::tests
