// Bytes as the tests write them down. It shares no code with protocol/wire.hpp, so that the two check each
// other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace aionbd::tests {

using byte_vector = std::vector<std::byte>;

class packet {
 public:
  packet& u8(std::uint64_t value) { return big_endian(value, 1); }
  packet& u16(std::uint64_t value) { return big_endian(value, 2); }
  packet& u32(std::uint64_t value) { return big_endian(value, 4); }
  packet& u64(std::uint64_t value) { return big_endian(value, 8); }

  packet& text(std::string_view value) {
    for (const char each : value) bytes_.push_back(static_cast<std::byte>(each));
    return *this;
  }

  packet& zeroes(std::size_t length) {
    bytes_.resize(bytes_.size() + length);
    return *this;
  }

  packet& append(const byte_vector& value) {
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    return *this;
  }

  operator byte_vector() const { return bytes_; }

 private:
  packet& big_endian(std::uint64_t value, int octets) {
    for (int shift = 8 * (octets - 1); shift >= 0; shift -= 8)
      bytes_.push_back(static_cast<std::byte>(value >> shift & 0xff));
    return *this;
  }

  byte_vector bytes_;
};

// A copy in a heap block of exactly this size, so that AddressSanitizer sees the first byte read past it.
inline byte_vector exact_copy(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

inline byte_vector joined(byte_vector first, const byte_vector& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

}  // namespace aionbd::tests
