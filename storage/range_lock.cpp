#include "storage/range_lock.hpp"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <utility>

namespace aionbd::storage {

namespace {

bool overlap(const range_lock::claim& one, const range_lock::claim& other) {
  return one.begin < other.end && other.begin < one.end;
}

}  // namespace

bool range_lock::acquire(claim& wanted) {
  assert(wanted.begin < wanted.end);
  const std::lock_guard guard(mutex_);
  // Passing an earlier waiter would let a stream of small writes starve a large one.
  const bool behind_a_waiter = std::any_of(waiting_.begin(), waiting_.end(),
                                           [&](const claim* earlier) { return overlap(*earlier, wanted); });
  if (behind_a_waiter || !is_free(wanted)) {
    waiting_.push_back(&wanted);
    return false;
  }
  hold(wanted);
  return true;
}

void range_lock::release(claim& held) {
  std::vector<claim*> admitted;
  {
    const std::lock_guard guard(mutex_);
    auto node = held_.extract(held.begin);
    assert(!node.empty() && node.mapped() == held.end);
    spare_nodes_.push_back(std::move(node));
    if (waiting_.empty()) return;
    admitted = admit_waiters(held.begin, held.end);
  }
  for (claim* next : admitted) next->granted(*next);
}

// Held ranges are disjoint, so the only one that can reach into `wanted` from below is the last that begins
// before its end.
bool range_lock::is_free(const claim& wanted) const {
  const auto after = held_.lower_bound(wanted.end);
  return after == held_.begin() || std::prev(after)->second <= wanted.begin;
}

void range_lock::hold(const claim& wanted) {
  if (spare_nodes_.empty()) {
    held_.emplace(wanted.begin, wanted.end);
    return;
  }
  auto node = std::move(spare_nodes_.back());
  spare_nodes_.pop_back();
  node.key() = wanted.begin;
  node.mapped() = wanted.end;
  held_.insert(std::move(node));
}

// Only a waiter that touches the released range can have become free; it goes ahead unless an earlier waiter,
// still waiting, wants some of its blocks.
std::vector<range_lock::claim*> range_lock::admit_waiters(std::uint64_t begin, std::uint64_t end) {
  std::vector<claim*> admitted;
  const claim released{.begin = begin, .end = end};
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    claim* const candidate = *at;
    const auto blocks_candidate = [&](const claim* earlier) { return overlap(*earlier, *candidate); };
    if (overlap(*candidate, released) && is_free(*candidate) &&
        std::none_of(waiting_.begin(), at, blocks_candidate)) {
      hold(*candidate);
      admitted.push_back(candidate);
      at = waiting_.erase(at);
    } else {
      ++at;
    }
  }
  return admitted;
}

}  // namespace aionbd::storage
