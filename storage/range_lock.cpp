#include "storage/range_lock.hpp"

#include <cassert>
#include <iterator>
#include <utility>

namespace aionbd::storage {

namespace {

bool overlap(const range_lock::claim& one, const range_lock::claim& other) {
  return one.begin < other.end && other.begin < one.end;
}

// Whether one of the list, up to but without `end`, has blocks of `wanted`.
bool overlaps_any(const range_lock::claim* list, const range_lock::claim* end,
                  const range_lock::claim& wanted) {
  while (list != end && !overlap(*list, wanted)) list = list->next;
  return list != end;
}

}  // namespace

bool range_lock::acquire(claim& wanted) noexcept {
  assert(wanted.begin < wanted.end);
  const std::lock_guard guard(mutex_);
  // Passing an earlier waiter would let a stream of small writes starve a large one.
  if (overlaps_any(first_waiting_, nullptr, wanted) || !is_free(wanted)) {
    wanted.next = nullptr;
    *end_of_waiting_ = &wanted;
    end_of_waiting_ = &wanted.next;
    return false;
  }
  hold(wanted);
  return true;
}

void range_lock::release(claim& held) noexcept {
  claim* admitted = nullptr;
  {
    const std::lock_guard guard(mutex_);
    held.place = held_.extract(held.begin);
    assert(!held.place.empty() && held.place.mapped() == held.end);
    admitted = admit_waiters(held);
  }
  // Once it was told, a claim may be gone.
  while (claim* const next = admitted) {
    admitted = next->next;
    next->granted(*next);
  }
}

// Held ranges are disjoint, so the only one that can reach into `wanted` from below is the last that begins
// before its end.
bool range_lock::is_free(const claim& wanted) const {
  const auto after = held_.lower_bound(wanted.end);
  return after == held_.begin() || std::prev(after)->second <= wanted.begin;
}

void range_lock::hold(claim& wanted) {
  wanted.place.key() = wanted.begin;
  wanted.place.mapped() = wanted.end;
  held_.insert(std::move(wanted.place));
}

// Only a waiter that touches the released range can have become free; it goes ahead unless an earlier waiter,
// still waiting, wants some of its blocks. Returns a list of those that do.
range_lock::claim* range_lock::admit_waiters(const claim& released) {
  claim* admitted = nullptr;
  claim** end_of_admitted = &admitted;
  claim** link = &first_waiting_;
  while (claim* const candidate = *link) {
    if (overlap(*candidate, released) && is_free(*candidate) &&
        !overlaps_any(first_waiting_, candidate, *candidate)) {
      hold(*candidate);
      *link = std::exchange(candidate->next, nullptr);
      *end_of_admitted = candidate;
      end_of_admitted = &candidate->next;
    } else {
      link = &candidate->next;
    }
  }
  end_of_waiting_ = link;
  return admitted;
}

}  // namespace aionbd::storage
