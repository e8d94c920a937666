// Big-endian numbers and text in and out of byte spans; the only place that knows the byte order of the wire.
// The reader is total: reading past the end yields zeroes and is remembered, so a decoder asks ok() once, at
// its end. The writer fills a span that its caller sized; running out of it is our own mistake and asserts.
// Both borrow the span they are given and must not outlive it. Any thread, no shared state.
#pragma once

#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace aionbd::protocol {

class reader {
 public:
  explicit reader(std::span<const std::byte> from) noexcept : left_(from) {}

  template <std::unsigned_integral Number>
  [[nodiscard]] Number number() noexcept {
    if (left_.size() < sizeof(Number)) return fail(), Number{};
    std::uint64_t value = 0;
    for (const std::byte octet : left_.first(sizeof(Number)))
      value = value << 8U | std::to_integer<std::uint64_t>(octet);
    left_ = left_.subspan(sizeof(Number));
    return static_cast<Number>(value);
  }

  [[nodiscard]] std::string text(std::size_t length) {
    if (left_.size() < length) return fail(), std::string{};
    std::string result;
    result.reserve(length);
    for (const std::byte octet : left_.first(length)) result.push_back(static_cast<char>(octet));
    left_ = left_.subspan(length);
    return result;
  }

  [[nodiscard]] std::size_t remaining() const noexcept { return left_.size(); }

  // False once anything was read past the end; then every later read yields zeroes as well.
  [[nodiscard]] bool ok() const noexcept { return ok_; }

 private:
  void fail() noexcept {
    ok_ = false;
    left_ = {};
  }

  std::span<const std::byte> left_;
  bool ok_ = true;
};

class writer {
 public:
  explicit writer(std::span<std::byte> to) noexcept : left_(to) {}

  template <std::unsigned_integral Number>
  writer& number(Number value) noexcept {
    assert(left_.size() >= sizeof(Number));
    for (std::size_t i = 0; i < sizeof(Number); ++i) {
      const std::size_t shift = 8 * (sizeof(Number) - 1 - i);
      left_[i] = static_cast<std::byte>(static_cast<std::uint64_t>(value) >> shift & 0xffU);
    }
    left_ = left_.subspan(sizeof(Number));
    return *this;
  }

  writer& text(std::string_view value) noexcept {
    assert(left_.size() >= value.size());
    for (std::size_t i = 0; i < value.size(); ++i) left_[i] = static_cast<std::byte>(value[i]);
    left_ = left_.subspan(value.size());
    return *this;
  }

  [[nodiscard]] std::size_t remaining() const noexcept { return left_.size(); }

 private:
  std::span<std::byte> left_;
};

}  // namespace aionbd::protocol
