// Transmission as the tests write it down: requests and replies in raw bytes.
#pragma once

#include <cstdint>

#include "tests/protocol/bytes.hpp"

namespace aionbd::tests {

namespace nbd {
inline constexpr std::uint16_t read = 0, write = 1, disc = 2, flush = 3, trim = 4, cache = 5,
                               write_zeroes = 6, block_status = 7;
inline constexpr std::uint16_t fua = 1, no_hole = 2, df = 4, req_one = 8, fast_zero = 16, payload_len = 32;
inline constexpr std::uint32_t ok = 0, eperm = 1, eio = 5, enomem = 12, einval = 22, enospc = 28,
                               enotsup = 95, eshutdown = 108;
}  // namespace nbd

inline constexpr std::size_t reply_size = 16;

inline byte_vector request(std::uint16_t command, std::uint64_t cookie, std::uint64_t offset = 0,
                           std::uint64_t length = 0, std::uint16_t flags = 0) {
  return packet().u32(0x25609513).u16(flags).u16(command).u64(cookie).u64(offset).u32(length);
}

inline byte_vector read_request(std::uint64_t cookie, std::uint64_t offset, std::uint64_t length) {
  return request(nbd::read, cookie, offset, length);
}

inline byte_vector write_request(std::uint64_t cookie, std::uint64_t offset, const byte_vector& payload,
                                 std::uint16_t flags = 0) {
  return joined(request(nbd::write, cookie, offset, payload.size(), flags), payload);
}

inline byte_vector disconnect() {
  return request(nbd::disc, 0);
}

inline byte_vector simple_reply(std::uint64_t cookie, std::uint32_t error = nbd::ok,
                                const byte_vector& data = {}) {
  return packet().u32(0x67446698).u32(error).u64(cookie).append(data);
}

}  // namespace aionbd::tests
