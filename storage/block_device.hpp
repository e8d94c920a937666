// The public face of storage: a file as a block device that takes reads, writes, flushes, trims and zeroes at
// any offset and length. One device is shared by all loops; each brings its own queue.
//
// Requests are valid when they come here: ranges inside the device, no change to a read-only one. That is
// asserted, not handled.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <system_error>

#include "storage/alignment.hpp"
#include "storage/dense_regions.hpp"
#include "storage/extents.hpp"
#include "storage/geometry.hpp"
#include "storage/io_queue.hpp"
#include "storage/range_lock.hpp"
#include "storage/read_modify_write.hpp"
#include "storage/sync_group.hpp"
#include "storage/transfer.hpp"

namespace aionbd::storage {

class block_device;

enum class operation_kind : std::uint8_t { read, write, flush, trim, write_zeroes, block_status };

// One request to a device. Owned by the caller, reusable, and at a stable address from submit() until `done`
// runs; so is its memory. Submitted from, and done on, the thread of its queue; `done` never runs inside
// submit(). Destroying one before it is done ends the process, also while it only waits for its turn.
struct operation {
  operation() = default;
  ~operation();

  operation_kind kind = operation_kind::read;
  bool durable = false;         // write, trim, write_zeroes: on stable storage before `done`
  bool keep_allocated = false;  // write_zeroes: no holes
  bool only_if_fast =
      false;  // write_zeroes: operation_not_supported, with nothing changed, if it had to write
  bool may_skip_holes = false;  // read: `extents` may come back saying what was not read
  std::uint64_t offset = 0;     // bytes
  std::uint64_t length = 0;     // bytes
  std::byte* memory = nullptr;  // read, write: as block_device::layout() says
  sync_witness* witness =
      nullptr;  // of the client that asks; may be null. Used by flushes and durable changes
  // Looked at whenever a change, or its next step, has its range to itself, if it is not null: true ends it
  // there with operation_canceled. So once it is set, no change of somebody who comes later is overtaken.
  const std::atomic<bool>* is_called_off = nullptr;
  void* owner = nullptr;
  void (*done)(operation&) = nullptr;

  std::error_code failure;  // the outcome
  // Of a failure, if it is known: everything before this offset was carried out, which is some of the
  // request.
  std::optional<std::uint64_t> failed_at;
  // block_status: what the range consists of, from its beginning; set count_max before. A read that may skip
  // holes: empty when everything was read, else what the payload consists of, and only data was read.
  extent_list extents;

 private:
  friend class block_device;
  friend class sparse_read;
  friend class zeroing;

  block_device* device_ = nullptr;  // from submit() until it is done
  io_queue* queue_ = nullptr;
  padded_range blocks_;  // the direct part
  void (*resume_)(operation&) = nullptr;
  transfer transfer_;
  read_modify_write rmw_;
  range_lock::claim claim_;
  io_request message_;  // carries a granted claim, or an early end, to the queue's thread; looks up extents
  sync_group::waiter flush_;
  std::uint64_t failures_before_ = 0;  // of a durable zeroing: syncs that had failed when it began
  void* owner_job_ = nullptr;          // the zeroing job of a trim or write_zeroes
};

// Bytes. The memory is to be aligned to the geometry's alignment.
struct memory_layout {
  std::uint64_t size = 0;
  std::uint64_t payload = 0;  // where in it the payload lies
};

class block_device {
 public:
  // The descriptors must outlive the device.
  block_device(const geometry& shape, const descriptors& file);

  const geometry& shape() const { return shape_; }

  // What a read or a write of this range needs of operation::memory. Aligned requests need nothing but the
  // payload; around the payload of others there is padding, and for a write scratch, for the device's own
  // use.
  memory_layout layout(operation_kind kind, std::uint64_t offset, std::uint64_t length) const;

  void submit(operation& op, io_queue& queue);

  // What a client that comes now knows of failed syncs.
  [[nodiscard]] sync_witness new_witness() { return syncs_.new_witness(); }
  // The client has gone; `is_lost`, without a word. See sync_group.
  void dismiss(sync_witness& witness, bool is_lost) { syncs_.dismiss(witness, is_lost); }

 private:
  friend class sparse_read;
  friend class zeroing;
  using step = void (*)(operation&);

  padded_range direct_part(std::uint64_t offset, std::uint64_t length) const;
  static bool is_called_off(const operation& op) { return op.is_called_off != nullptr && *op.is_called_off; }
  static bool has_direct_part(const operation& op) { return op.blocks_.length != 0; }
  bool has_buffered_part(const operation& op) const { return op.offset + op.length > shape_.direct_end; }
  std::uint64_t scratch_length(operation_kind kind, const padded_range& blocks) const;

  // A claim on every block that the range touches; goes on with `held` on the operation's own thread.
  void lock(operation& op, std::uint64_t offset, std::uint64_t length, step held);
  void unlock(operation& op) { writes_.release(op.claim_); }
  // Goes on with `next` from the next drain.
  static void resume_later(operation& op, step next);
  static void on_message(io_request& request);

  void read(operation& op);
  void read_plainly(operation& op);
  void find_status(operation& op);
  static void on_status_found(io_request& request);
  static void read_buffered(operation& op);
  static void write_locked(operation& op);
  static void write_buffered(operation& op);
  static void on_direct_read(void* owner, std::error_code failure);
  static void on_direct_written(void* owner, std::error_code failure);
  std::error_code true_cause(const operation& op, std::error_code failure) const;
  static void on_buffered_written(void* owner, std::error_code failure);
  static void on_all_read(void* owner, std::error_code failure);
  static void on_all_written(operation& op, std::error_code failure, bool is_failed_sync);
  void transfer_buffered(operation& op, io_op what, transfer::continuation next);

  void flush(operation& op);
  static void note_reached(operation& op, std::uint64_t offset);
  // Failed syncs are told on flushes and durable changes, once to each witness.
  void hear_of_failed_syncs(operation& op);
  static void on_flushed(void* owner, std::error_code failure);
  static void finish(operation& op);

  const geometry shape_;
  const descriptors file_;
  range_lock writes_;
  sync_group syncs_;

  std::atomic<bool> may_have_holes_;
  dense_regions dense_;

  // As the geometry says, until the file system refuses one.
  std::atomic<bool> can_punch_hole_;
  std::atomic<bool> can_zero_range_;
  std::atomic<bool> can_discard_;
};

}  // namespace aionbd::storage
