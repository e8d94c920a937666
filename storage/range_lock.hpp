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
#include <list>
#include <map>
#include <mutex>
#include <vector>

namespace aionbd::storage {

class range_lock {
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
  };

  // True: held from now on. False: claim.granted will be called when it is.
  [[nodiscard]] bool acquire(claim& wanted);
  void release(claim& held);

 private:
  using held_ranges = std::map<std::uint64_t, std::uint64_t>;  // begin -> end; they never overlap
  bool is_free(const claim& wanted) const;
  void hold(const claim& wanted);
  std::vector<claim*> admit_waiters(std::uint64_t begin, std::uint64_t end);

  mutable std::mutex mutex_;
  held_ranges held_;
  std::vector<held_ranges::node_type> spare_nodes_;  // so that the steady state allocates nothing
  std::list<claim*> waiting_;                        // in order of arrival
};

}  // namespace aionbd::storage
