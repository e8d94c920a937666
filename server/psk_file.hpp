// A file of pre-shared keys in GnuTLS's format, as psktool and nbdkit have it: a line for each user, the
// name, a colon, and the key in hexadecimal digits. A name with unusual bytes is written # and its own
// digits.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace aionbd::server {

// What the library behind TLS takes at most.
inline constexpr std::size_t psk_user_length_max = 256;
inline constexpr std::size_t psk_key_length_max = 512;
// A key that is shorter may be guessed; it is served, with a warning.
inline constexpr std::size_t psk_key_length_safe = 16;

struct pre_shared_keys {
  std::map<std::string, std::string, std::less<>> by_user;  // user -> the key's bytes
  std::vector<std::string> warnings;                        // sentences for people
};

// Throws std::runtime_error with a sentence that names the line. `name` is how the file is called in it.
[[nodiscard]] pre_shared_keys parse_pre_shared_keys(const std::string& name, std::string_view content);

// One line of such a file, without its end. `user` must be fit for one: see is_psk_user().
[[nodiscard]] std::string psk_line(std::string_view user, std::string_view key);

// Can be written as it is: printing characters of ASCII but for the colon, and no # in front.
[[nodiscard]] bool is_psk_user(std::string_view user) noexcept;

}  // namespace aionbd::server
