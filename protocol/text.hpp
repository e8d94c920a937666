// What a string of the protocol may be: UTF-8, without NUL, at most 4096 bytes ("Conventions").
// Names from clients and from the configuration are measured by the same rule.
#pragma once

#include <cstddef>
#include <string_view>

namespace aionbd::protocol {

// True for a string that may stand on the wire as an export's name or description. The empty string is one.
[[nodiscard]] bool is_well_formed(std::string_view text) noexcept;

// The longest beginning of `text` of at most `length_max` bytes that does not end inside a character; valid
// as long as what `text` views. For texts that are shown to people and may grow with what a peer sent: they
// are cut, never asserted on.
[[nodiscard]] std::string_view clipped(std::string_view text, std::size_t length_max) noexcept;

}  // namespace aionbd::protocol
