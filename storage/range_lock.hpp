// Every range that is being changed, across all loops. Two changes that share a block are never in flight
// together: the later one waits for the earlier, in order of arrival.
//
// Why aligned writes are registered too: an unaligned write reads the blocks at its edges, patches them and
// writes them back. An aligned write that lands in between would be undone by the stale edge.
// Why overlapping aligned writes wait as well: a write of a client that has gone may still be in flight, and
// nothing its successor writes to the same place may be overtaken by it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace aionbd::storage {

class range_lock {
 private:
  using held_ranges = std::map<std::uint64_t, std::uint64_t>;  // begin -> end; they never overlap

 public:
  // A range asked for or held. Owned by the caller, at a stable address until released. Blocks, not bytes:
  // the caller rounds begin down and end up to what it really reads and writes back.
  struct claim {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;  // past the last byte; begin < end
    void* owner = nullptr;
    // Called once if acquire() had to wait, on the thread that released the last range in the way and outside
    // the lock. It must only pass the word on to the owner's thread.
    void (*granted)(claim&) = nullptr;

    // The lock's own. What a claim needs of memory it brings with it, so that neither acquiring nor releasing
    // can fail.
    held_ranges::node_type place = new_place();
    claim* next = nullptr;
  };

  // True: held from now on. False: claim.granted will be called when it is.
  [[nodiscard]] bool acquire(claim& wanted) noexcept;
  void release(claim& held) noexcept;

 private:
  static held_ranges::node_type new_place() { return held_ranges{{0, 0}}.extract(0); }
  bool is_free(const claim& wanted) const;
  void hold(claim& wanted);
  claim* admit_waiters(const claim& released);

  mutable std::mutex mutex_;
  held_ranges held_;
  // In order of arrival.
  claim* first_waiting_ = nullptr;
  claim** end_of_waiting_ = &first_waiting_;
};

}  // namespace aionbd::storage
