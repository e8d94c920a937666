#include "tests/storage/image_model.hpp"

#include <algorithm>

namespace aionbd::storage {

image_model::image_model(std::size_t size) : bytes_(size, std::vector<std::size_t>{0}) {
  // The zeroes of a new disk.
  changes_.push_back({.what = kind::zeroes, .offset = 0, .length = size, .began = 0, .ended = 0});
}

std::byte image_model::written(std::size_t change, std::uint64_t offset) {
  return static_cast<std::byte>(1 + (change * 37 + offset) % 255);  // never zero
}

std::byte image_model::value_of(std::size_t change, std::uint64_t offset) const {
  return changes_[change].what == kind::write ? written(change, offset) : std::byte{0};
}

std::size_t image_model::begin_change(kind what, std::uint64_t offset, std::uint64_t length) {
  const std::size_t number = changes_.size();
  changes_.push_back({.what = what, .offset = offset, .length = length, .began = ++now_});
  for (std::uint64_t at = offset; at < offset + length; ++at) bytes_[at].push_back(number);
  return number;
}

void image_model::end_change(std::size_t change) {
  changes_[change].ended = ++now_;
  const std::uint64_t end = changes_[change].offset + changes_[change].length;
  for (std::uint64_t at = changes_[change].offset; at < end; ++at) forget_what_is_ruled_out(at);
}

image_model::time image_model::begin_look() {
  looks_.insert(++now_);
  return now_;
}

void image_model::end_look(time began) {
  looks_.erase(looks_.find(began));
}

bool image_model::is_before(std::size_t one, std::size_t other) const {
  const change_record& first = changes_[one];
  const change_record& second = changes_[other];
  if (first.what == kind::write && second.what == kind::write) return one < other;
  return first.ended < second.began;
}

// By a change that was answered before that time and cannot have come earlier.
bool image_model::is_ruled_out(std::uint64_t offset, std::size_t change, time before) const {
  return std::ranges::any_of(bytes_[offset], [&](std::size_t later) {
    const change_record& other = changes_[later];
    return other.what != kind::trim && other.ended < before && is_before(change, later);
  });
}

bool image_model::may_be(std::uint64_t offset, std::byte value, time began) const {
  return std::ranges::any_of(bytes_[offset], [&](std::size_t change) {
    return value_of(change, offset) == value && !is_ruled_out(offset, change, began);
  });
}

bool image_model::may_be_after(std::uint64_t offset, std::byte value, std::size_t durable) const {
  return std::ranges::any_of(bytes_[offset], [&](std::size_t change) {
    return value_of(change, offset) == value && !is_before(change, durable);
  });
}

void image_model::forget_what_is_ruled_out(std::uint64_t offset) {
  const time oldest_look = looks_.empty() ? now_ + 1 : *looks_.begin();
  const std::vector<std::size_t> before = bytes_[offset];
  std::vector<std::size_t> kept;
  for (const std::size_t change : before) {
    if (!is_ruled_out(offset, change, oldest_look)) kept.push_back(change);
  }
  bytes_[offset] = kept;
}

}  // namespace aionbd::storage
