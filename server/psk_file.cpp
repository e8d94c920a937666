#include "server/psk_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <optional>
#include <stdexcept>
#include <utility>

namespace aionbd::server {

namespace {

std::optional<unsigned> digit_of(char sign) {
  if (sign >= '0' && sign <= '9') return static_cast<unsigned>(sign - '0');
  if (sign >= 'a' && sign <= 'f') return static_cast<unsigned>(sign - 'a') + 10;
  if (sign >= 'A' && sign <= 'F') return static_cast<unsigned>(sign - 'A') + 10;
  return std::nullopt;
}

std::optional<std::string> bytes_of(std::string_view digits) {
  if (digits.empty() || digits.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(digits.size() / 2);  // growing would leave pieces of a key behind
  for (std::size_t at = 0; at < digits.size(); at += 2) {
    const auto high = digit_of(digits[at]), low = digit_of(digits[at + 1]);
    if (!high || !low) return std::nullopt;
    bytes.push_back(static_cast<char>(*high << 4U | *low));
  }
  return bytes;
}

std::optional<std::string> user_of(std::string_view written) {
  if (written.starts_with('#')) return bytes_of(written.substr(1));
  if (written.empty()) return std::nullopt;
  return std::string(written);
}

}  // namespace

pre_shared_keys parse_pre_shared_keys(const std::string& name, std::string_view content) {
  pre_shared_keys result;
  for (std::size_t number = 1; !content.empty(); ++number) {
    const std::size_t end = std::min(content.find('\n'), content.size());
    std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const auto complain = [&](std::string_view why) {
      throw std::runtime_error(fmt::format("{}, line {}: {}", name, number, why));
    };

    const std::size_t colon = line.rfind(':');
    if (colon == line.npos) complain("not a user, a colon and a key");
    const auto user = user_of(line.substr(0, colon));
    if (!user || user->find('\0') != user->npos) complain("the user's name is empty or not understood");
    if (user->size() > psk_user_length_max)
      complain(fmt::format("the user's name is longer than {} bytes", psk_user_length_max));
    auto key = bytes_of(line.substr(colon + 1));
    if (!key) complain("the key is not an even number of hexadecimal digits");
    if (key->size() > psk_key_length_max)
      complain(fmt::format("the key is longer than {} bytes", psk_key_length_max));
    if (key->size() < psk_key_length_safe) {
      result.warnings.push_back(fmt::format("{}, line {}: a key of {} bytes may be guessed; {} are better",
                                            name, number, key->size(), psk_key_length_safe));
    }
    if (!result.by_user.emplace(*user, *std::move(key)).second) complain("this user has a key already");
  }
  if (result.by_user.empty()) throw std::runtime_error(fmt::format("{} has no keys", name));
  return result;
}

std::string psk_line(std::string_view user, std::string_view key) {
  assert(is_psk_user(user));
  std::string line = fmt::format("{}:", user);
  for (const char each : key) line += fmt::format("{:02x}", static_cast<unsigned char>(each));
  return line;
}

bool is_psk_user(std::string_view user) noexcept {
  return !user.empty() && user.size() <= psk_user_length_max && user.front() != '#' &&
         std::all_of(user.begin(), user.end(),
                     [](char each) { return each > ' ' && each < 127 && each != ':'; });
}

}  // namespace aionbd::server
