// A disk in memory and queues to it, for tests of all that lies above io_queue. The disk carries requests out
// in a seeded random order and in pieces, may stop short or fail, and watches what no real disk tells:
// alignment, changes in flight to the same place, what a power cut would leave. As under Linux, what a sync
// failed to write may never be written, and later syncs succeed all the same.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "storage/extents.hpp"
#include "storage/geometry.hpp"
#include "storage/io_queue.hpp"

namespace aionbd::storage {

class fake_queue;

// Any thread; one mutex guards all of it.
class fake_disk {
 public:
  static constexpr int direct_fd = 1000;
  static constexpr int buffered_fd = 1001;
  static constexpr std::size_t op_count = 9;

  // What a discard leaves behind: not zeroes, for nobody may rely on them.
  static constexpr std::byte discarded{0xDD};

  fake_disk(const geometry& shape, std::uint64_t seed);
  // Whatever is left to chance is decided by `choose`: a number below its argument, which is at least 1.
  fake_disk(const geometry& shape, std::function<std::uint64_t(std::uint64_t)> choose);
  ~fake_disk();  // nothing may be in flight

  const geometry& shape() const { return shape_; }
  descriptors file() const;

  // Moves one request in flight a random step on; false when there is none.
  bool step();
  std::size_t in_flight() const;

  // What reads see, and what would be there after a power cut: only what a sync that began after it had
  // completed, or a durable write, made so.
  std::vector<std::byte> image() const;
  std::vector<std::byte> stable() const;
  void fill(const std::vector<std::byte>& content);  // all of it data

  // Its map, in blocks of zeroing_granularity: at first all hole if the shape may have holes, else all data.
  // What is made a hole or unwritten is zeroed.
  void make(extent_kind kind, std::uint64_t offset, std::uint64_t length);
  extent_kind kind_at(std::uint64_t offset) const;

  // They say that all went well, and make nothing stable.
  void ignore_syncs() { ignores_syncs_ = true; }
  void ignore_durability_of_writes() { ignores_durability_ = true; }

  // Reads and writes may transfer less than asked, in whole blocks when direct.
  // Everything finishes while it is handed over, as in a file system in memory.
  void finish_at_once(bool enabled) { finishes_at_once_ = enabled; }
  void short_counts(bool enabled) { short_counts_ = enabled; }
  // The next request of this kind transfers only so many bytes.
  void cut_next(io_op op, std::uint64_t length) { cut_nth(op, 0, length); }
  // The n-th, counted from 0 at the call.
  void cut_nth(io_op op, std::uint64_t n, std::uint64_t length);
  std::uint64_t cuts_made() const;

  // Requests are counted from 0 at the call. A failed write may have changed some of its range.
  void fail_nth(io_op op, std::uint64_t n, int error);
  void fail_nth_of_any(std::uint64_t n, int error);
  void refuse_all(io_op op, int error);
  std::uint64_t failures_injected() const;
  // Errors of syncs, in the order in which those who wanted them were told.
  std::vector<int> failed_syncs() const;
  // How often those who wanted something to be stable, durable writes among it, were told that it failed.
  // Each time some of what was not stable may be lost: until it is written again reads see it, and syncs do
  // not make it stable.
  std::uint64_t possible_losses() const;

  std::uint64_t count(io_op op) const;
  struct record {
    io_op op;
    std::uint64_t offset;
    std::uint64_t length;
    bool durable;
  };
  // What failed, or was cut short, last.
  std::optional<record> last_disturbed() const;
  std::vector<record> log() const;  // in order of submission
  void forget_log();

  // Rules broken by whoever submitted; must be empty.
  std::vector<std::string> violations() const;

 private:
  friend class fake_queue;

  struct flight {
    io_request* request = nullptr;
    fake_queue* home = nullptr;
    bool begun = false;
    int error = 0;
    std::uint64_t goal = 0;         // bytes to be transferred
    std::uint64_t transferred = 0;  // bytes
    // For syncs: what had completed when it began.
    std::vector<std::byte> content;
    std::vector<std::uint32_t> versions;
  };
  struct injection {
    bool any_op = false;
    io_op op = io_op::read;
    std::uint64_t skip = 0;
    int error = 0;
    bool forever = false;
    bool used_up = false;
  };

  void take(io_request& request, fake_queue& home);
  void check(const io_request& request);
  void check_conflicts(const io_request& request);
  int injected_error(const io_request& request);
  std::uint64_t goal_of(const io_request& request);
  std::optional<std::uint64_t> next_cut(const io_request& request);
  void begin(flight& moving);
  bool lingers();
  void transfer_piece(flight& moving);
  bool map_piece(const io_request& request, std::uint64_t offset, std::uint64_t length);
  void note_kind(const flight& moving, std::uint64_t length);
  void set_kind(extent_kind kind, std::uint64_t offset, std::uint64_t length);
  void finish(flight& moving);
  void note_delivery(const io_request& request);
  void lose_some();
  void make_stable(std::uint64_t offset, const std::byte* content, const std::uint32_t* versions,
                   std::uint64_t length);
  std::uint64_t random(std::uint64_t limit) { return choose_(limit); }  // 0..limit-1
  void complain(const char* what, const io_request& request);

  const geometry shape_;
  mutable std::mutex mutex_;
  std::function<std::uint64_t(std::uint64_t)> choose_;
  std::list<flight> flights_;
  std::vector<std::byte> image_;
  std::vector<std::byte> completed_;  // as image_, of finished changes only
  std::vector<std::byte> stable_;
  std::vector<std::uint32_t> completed_versions_;
  std::vector<std::uint32_t> stable_versions_;
  std::vector<std::uint32_t> lost_versions_;  // these, and older ones, become stable no more
  std::uint32_t version_ = 0;
  std::vector<extent_kind> kinds_;  // of each block
  bool finishes_at_once_ = false;
  bool short_counts_ = false;
  bool ignores_syncs_ = false;
  bool ignores_durability_ = false;
  struct cut {
    io_op op;
    std::uint64_t skip;
    std::uint64_t length;
  };
  std::vector<cut> cuts_;
  std::uint64_t cuts_made_ = 0;
  std::vector<injection> injections_;
  std::uint64_t injected_ = 0;
  std::vector<int> failed_syncs_;
  std::uint64_t possible_losses_ = 0;
  std::optional<record> last_disturbed_;
  std::array<std::uint64_t, op_count> counts_{};
  std::vector<record> log_;
  std::vector<std::string> violations_;
};

// One loop's queue to the disk. As a real one: submit(), flush() and drain() on one thread, post() on any.
class fake_queue final : public io_queue {
 public:
  explicit fake_queue(fake_disk& disk) : disk_(disk) {}
  ~fake_queue() override;  // nothing may be outstanding

  void submit(io_request& request) override;
  void flush() override;
  std::size_t deliver_finished() override;
  void post(io_request& request) override;

  // Runs the hooks of what is finished or posted; how many.
  std::size_t drain();

  std::size_t outstanding() const { return outstanding_; }
  std::size_t most_outstanding() const { return most_outstanding_; }  // at any time

 private:
  friend class fake_disk;
  std::size_t deliver(const std::vector<io_request*>& ready);

  fake_disk& disk_;
  io_list queued_;
  std::size_t outstanding_ = 0;
  std::size_t most_outstanding_ = 0;
  std::mutex done_mutex_;
  std::vector<io_request*> done_;  // guarded by done_mutex_, as is posted_
  io_list posted_;
};

// Steps the disk and drains the queues, all on this thread, until nothing is left to do.
void run(fake_disk& disk, const std::vector<fake_queue*>& queues);
void run(fake_disk& disk, fake_queue& queue);

const char* name_of(io_op op);

}  // namespace aionbd::storage
