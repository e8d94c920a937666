// Flushes of one file from all loops: those that wait together share one sync, and a failed sync is
// remembered until every witness has heard of it.
#pragma once

#include <cstdint>
#include <mutex>
#include <system_error>

#include "storage/io_queue.hpp"

namespace aionbd::storage {

// What one client knows of failed syncs. Linux reports a failure once per open file; many clients share ours,
// so the group keeps count and each witness compares.
struct sync_witness {
  std::uint64_t failures_seen = 0;
  std::uint64_t failures_before = 0;  // when it came, as far as it need not hear of them
  std::uint64_t departures = 0;       // when it came; see sync_group
  bool is_gone = false;               // was dismissed; what it is told may reach nobody
};

// A failure that is over when there is room again, of a request that can then be made again. What a sync has
// failed to write, however, is gone.
[[nodiscard]] bool is_want_of_room(std::error_code failure);

class sync_group {
 public:
  // One flush. Owned by the caller, at a stable address until `done` runs on the thread of `queue`.
  struct waiter {
    io_queue* queue = nullptr;
    void* owner = nullptr;
    void (*done)(void* owner, std::error_code failure) = nullptr;

    // The group's own.
    io_request message;
    std::error_code failure;
    waiter* next = nullptr;
  };

  // Syncs by `fd`. Linux tells each open file once that pages could not be written back, and it may be a
  // durable write that hears of it: so where some of the file goes through the page cache, one by which no
  // durable direct writes go.
  explicit sync_group(int fd) : fd_(fd) {}

  // Calls back when a sync that began after this call has ended. Any thread, the one that runs waiter.queue.
  void join(waiter& flush);

  // A durable write failed: whatever else that sync covered may be lost as well.
  void note_failure(std::error_code failure);

  // The failure that `witness` has not heard of yet, if there is one, and of several one that lost data
  // before one for want of room; it counts as heard.
  [[nodiscard]] std::error_code unheard_failure(sync_witness& witness);

  // For a durable change that goes in steps: the sync at its end covers nothing that another one has failed
  // to write in between, whoever was told of that.
  [[nodiscard]] std::uint64_t failures();
  [[nodiscard]] std::error_code failure_since(std::uint64_t failures);

  // A new client answers for nothing that happened before it, unless nobody has been told.
  [[nodiscard]] sync_witness new_witness();

  // It may still ask what it has not heard of, but nobody hears it. Where it has not heard of all there was,
  // or `is_lost` and so perhaps its last answers, it may come back as a new one: then those who come next are
  // told of all that, and of what fails from now on, until one of them has been. Who was there before hears
  // for itself only. To be called once, and of one that is lost as soon as that is known.
  void dismiss(sync_witness& witness, bool is_lost);

 private:
  struct waiter_list {
    waiter* first = nullptr;
    waiter* last = nullptr;
  };
  void begin(io_queue& queue);
  static void on_synced(io_request& request);
  void end();
  // Of the failures after so many, what is told; under the lock.
  std::error_code news_since(std::uint64_t failures) const;

  const int fd_;
  std::mutex mutex_;
  bool running_ = false;
  waiter_list waiting_;  // came while a sync was running; guarded by mutex_
  waiter_list served_;   // by the sync that is running; touched only by whoever runs it
  io_queue* runner_ = nullptr;
  io_request io_;

  std::uint64_t failures_ = 0;  // guarded by mutex_, as those below
  std::error_code last_failure_;
  std::error_code last_loss_;      // the last failure that was no want of room
  std::uint64_t losses_end_ = 0;   // the number of that failure
  std::uint64_t untold_from_ = 0;  // newcomers are told of the failures after so many
  std::uint64_t departures_ = 0;   // of witnesses that may not have heard of all
  std::uint64_t settled_departures_ = 0;
};

}  // namespace aionbd::storage
