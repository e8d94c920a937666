#include "protocol/text.hpp"

#include <cstdint>

#include "protocol/constants.hpp"

namespace aionbd::protocol {
namespace {

bool is_continuation(char octet) noexcept {
  return (static_cast<unsigned char>(octet) & 0xc0U) == 0x80U;
}

// How a character begins: how many bytes follow, its first bits, and the smallest value that needs this
// length.
struct opening {
  std::size_t following;
  std::uint32_t bits;
  std::uint32_t smallest;
};

bool decode_opening(unsigned char first, opening& result) noexcept {
  if (first < 0x80U)
    result = {0, first, 0};
  else if ((first & 0xe0U) == 0xc0U)
    result = {1, first & 0x1fU, 0x80};
  else if ((first & 0xf0U) == 0xe0U)
    result = {2, first & 0x0fU, 0x800};
  else if ((first & 0xf8U) == 0xf0U)
    result = {3, first & 0x07U, 0x10000};
  else
    return false;
  return true;
}

// Overlong spellings are refused because they would give one name two spellings; surrogates are not
// characters.
bool is_character(std::uint32_t value, std::uint32_t smallest) noexcept {
  const bool surrogate = value >= 0xd800 && value <= 0xdfff;
  return value >= smallest && value <= 0x10ffff && !surrogate && value != 0;
}

}  // namespace

bool is_well_formed(std::string_view text) noexcept {
  if (text.size() > text_length_max) return false;
  while (!text.empty()) {
    opening start{};
    if (!decode_opening(static_cast<unsigned char>(text.front()), start)) return false;
    if (text.size() <= start.following) return false;
    std::uint32_t value = start.bits;
    for (const char octet : text.substr(1, start.following)) {
      if (!is_continuation(octet)) return false;
      value = value << 6U | (static_cast<unsigned char>(octet) & 0x3fU);
    }
    if (!is_character(value, start.smallest)) return false;
    text.remove_prefix(1 + start.following);
  }
  return true;
}

std::string_view clipped(std::string_view text, std::size_t length_max) noexcept {
  if (text.size() <= length_max) return text;
  std::size_t length = length_max;
  while (length > 0 && is_continuation(text[length])) --length;
  return text.substr(0, length);
}

}  // namespace aionbd::protocol
