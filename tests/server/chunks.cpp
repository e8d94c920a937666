#include "tests/server/chunks.hpp"

#include <algorithm>

#include "tests/support/catch.hpp"

namespace aionbd::tests {

namespace {

constexpr std::uint16_t done = 1;

void check_payload(const chunk& received) {
  const byte_vector& payload = received.payload;
  switch (received.type) {
    case nbd::chunk_none:
      REQUIRE(payload.empty());
      REQUIRE(received.flags == done);
      return;
    case nbd::chunk_data:
      REQUIRE(payload.size() > 8);
      return;
    case nbd::chunk_hole:
      REQUIRE(payload.size() == 12);
      REQUIRE(number_at(payload, 8, 4) != 0);
      return;
    case nbd::chunk_error:
      REQUIRE(payload.size() >= 6);
      REQUIRE(number_at(payload, 0, 4) != nbd::ok);
      REQUIRE(number_at(payload, 4, 2) == payload.size() - 6);
      REQUIRE(payload.size() - 6 <= 4096);
      return;
    case nbd::chunk_status:
      REQUIRE(payload.size() >= 12);
      REQUIRE(payload.size() % 8 == 4);
      return;
    case nbd::chunk_status_ext:
      REQUIRE(payload.size() >= 24);
      REQUIRE(payload.size() == 8 + 16 * number_at(payload, 4, 4));
      return;
    default:
      FAIL("a chunk of the unknown type " << received.type);
  }
}

}  // namespace

std::uint64_t number_at(const byte_vector& bytes, std::size_t offset, std::size_t octets) {
  REQUIRE(offset + octets <= bytes.size());
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < octets; ++i) {
    value = value << 8U | std::to_integer<std::uint64_t>(bytes[offset + i]);
  }
  return value;
}

std::uint32_t chunked_reply::error() const {
  const chunk& last = chunks.back();
  return last.type == nbd::chunk_error ? static_cast<std::uint32_t>(number_at(last.payload, 0, 4)) : nbd::ok;
}

std::string chunked_reply::text() const {
  std::string text;
  const byte_vector& payload = chunks.back().payload;
  for (std::size_t i = 6; i < payload.size(); ++i) text += static_cast<char>(payload[i]);
  return text;
}

std::pair<byte_vector, pieces> chunked_reply::data(std::uint64_t offset, std::size_t length) const {
  byte_vector bytes(length);
  pieces parts;
  std::uint64_t at = offset;
  for (const chunk& each : chunks) {
    const bool is_data = each.type == nbd::chunk_data;
    REQUIRE((is_data || each.type == nbd::chunk_hole));
    REQUIRE(number_at(each.payload, 0, 8) == at);
    const std::uint64_t size = is_data ? each.payload.size() - 8 : number_at(each.payload, 8, 4);
    REQUIRE(size <= offset + length - at);
    if (is_data) {
      std::copy(each.payload.begin() + 8, each.payload.end(),
                bytes.begin() + static_cast<std::ptrdiff_t>(at - offset));
    }
    parts.push_back({size, is_data ? 0U : nbd::is_hole});
    at += size;
  }
  REQUIRE(at == offset + length);
  return {bytes, parts};
}

pieces chunked_reply::extents() const {
  REQUIRE(chunks.size() == 1);
  const chunk& only = chunks[0];
  const bool extended = only.type == nbd::chunk_status_ext;
  REQUIRE((extended || only.type == nbd::chunk_status));
  REQUIRE(number_at(only.payload, 0, 4) == protocol::allocation_context_id);
  const std::size_t width = extended ? 8 : 4;
  pieces found;
  for (std::size_t at = extended ? 8 : 4; at < only.payload.size(); at += 2 * width) {
    found.push_back({number_at(only.payload, at, width), number_at(only.payload, at + width, width)});
    REQUIRE(found.back().length != 0);
    if (found.size() > 1) REQUIRE(found.back().flags != found[found.size() - 2].flags);
  }
  return found;
}

byte_vector chunk_client::header(std::uint16_t command, std::uint64_t cookie, std::uint64_t offset,
                                 std::uint64_t length, std::uint16_t flags) const {
  if (mode_ == reply_mode::structured) return request(command, cookie, offset, length, flags);
  return packet().u32(0x21e41c71).u16(flags).u16(command).u64(cookie).u64(offset).u64(length);
}

byte_vector chunk_client::write(std::uint64_t cookie, std::uint64_t offset, const byte_vector& payload,
                                std::uint16_t flags) const {
  if (mode_ == reply_mode::extended) flags = static_cast<std::uint16_t>(flags | nbd::payload_len);
  return joined(header(nbd::write, cookie, offset, payload.size(), flags), payload);
}

chunk chunk_client::receive_chunk() {
  const bool extended = mode_ == reply_mode::extended;
  const byte_vector head = peer_.receive(extended ? 32 : 20);
  REQUIRE(number_at(head, 0, 4) == (extended ? 0x6e8a278c : 0x668e33ef));
  chunk received;
  received.flags = static_cast<std::uint16_t>(number_at(head, 4, 2));
  received.type = static_cast<std::uint16_t>(number_at(head, 6, 2));
  received.cookie = number_at(head, 8, 8);
  if (extended) received.offset = number_at(head, 16, 8);
  received.payload = peer_.receive(extended ? number_at(head, 24, 8) : number_at(head, 16, 4));
  check_payload(received);
  return received;
}

chunked_reply chunk_client::receive(std::uint64_t cookie, std::uint64_t asked_offset) {
  chunked_reply whole;
  do {
    whole.chunks.push_back(receive_chunk());
    const chunk& last = whole.chunks.back();
    REQUIRE(last.cookie == cookie);
    REQUIRE((last.flags & ~done) == 0);
    if (mode_ == reply_mode::extended) REQUIRE(last.offset == asked_offset);
  } while ((whole.chunks.back().flags & done) == 0);
  return whole;
}

chunked_reply chunk_client::ask(std::uint16_t command, std::uint64_t offset, std::uint64_t length,
                                std::uint16_t flags) {
  send(header(command, ++last_cookie_, offset, length, flags));
  return receive(last_cookie_, offset);
}

chunked_reply chunk_client::ask_to_write(std::uint64_t offset, const byte_vector& payload,
                                         std::uint16_t flags) {
  send(write(++last_cookie_, offset, payload, flags));
  return receive(last_cookie_, offset);
}

byte_vector chunk_client::read(std::uint64_t offset, std::size_t length) {
  return ask(nbd::read, offset, length).data(offset, length).first;
}

}  // namespace aionbd::tests
