// One I/O on one file descriptor, and the queue that carries it out. The queue is the seam between the
// block device's logic and the system: tests put an in-memory queue here that reorders, cuts short and fails.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace aionbd::storage {

struct extent_list;
class io_queue;

enum class io_op : std::uint8_t {
  read,            // direct and asynchronous: offset, memory and length aligned
  write,           // likewise
  buffered_read,   // through the page cache, off the submitting thread; any alignment
  buffered_write,  // likewise
  sync,            // data, and the metadata needed to read it back, to stable storage (fdatasync)
  punch_hole,      // deallocate offset..offset+length of a file; it reads as zeroes afterwards
  zero_range,      // make the range read as zeroes and keep it allocated
  map,             // find out what is data and what is a hole: into io_request::extents
  discard,         // tell a block device that the range is not needed; its content is undefined afterwards
};

enum class io_state : std::uint8_t {
  idle,    // the owner's: may be changed, reused, destroyed
  queued,  // with the queue or a worker, not yet begun
  active,  // with the kernel
};

// Owned by whoever submits it, and not to be moved, changed or destroyed from submit() until its hook runs;
// the memory it points to likewise. Destroying one that is not idle ends the process: the kernel would write
// into freed memory.
struct io_request {
  io_request() = default;
  io_request(const io_request&) = delete;
  io_request& operator=(const io_request&) = delete;
  ~io_request();

  // Set by the owner before submit().
  io_op op = io_op::read;
  bool durable = false;  // write, buffered_write: on stable storage before completion
  int fd = -1;
  std::uint64_t offset = 0;        // bytes
  std::uint64_t length = 0;        // bytes; at most 2^31 - 4096 for reads and writes
  std::byte* memory = nullptr;     // reads and writes
  extent_list* extents = nullptr;  // map
  void* owner = nullptr;           // for the hook's use
  void (*hook)(io_request&) = nullptr;

  // Set by the queue before the hook runs: bytes transferred (reads and writes) or 0, or -errno.
  std::int64_t result = 0;

  // The queue's own.
  io_state state = io_state::idle;
  io_request* next = nullptr;
  io_queue* home = nullptr;  // where a worker delivers it
  alignas(8) std::array<std::byte, 64> kernel_block{};
};

// A first-in-first-out list linked through io_request::next: no allocation.
class io_list {
 public:
  bool empty() const { return first_ == nullptr; }
  io_request* front() const { return first_; }
  void push_back(io_request& request);
  io_request* pop_front();

 private:
  io_request* first_ = nullptr;
  io_request* last_ = nullptr;
};

// Threads: submit(), flush() and deliver_finished() belong to the thread that runs the queue; post() is for
// any thread. Every hook is called on the queue's own thread, by its drain or by deliver_finished(), never
// from inside submit(), flush() or post(). A hook may submit again.
class io_queue {
 public:
  virtual ~io_queue() = default;

  // Takes an idle request. It reaches the kernel by the next flush() at the latest.
  virtual void submit(io_request& request) = 0;

  // Hands what is queued to the kernel.
  virtual void flush() = 0;

  // Calls the hooks of what has finished, as far as that is seen without asking the system, and submits what
  // they asked for; returns how many were called. Not from inside a hook. A queue that cannot see it has
  // none.
  virtual std::size_t deliver_finished() { return 0; }

  // Delivers a request that was finished elsewhere (its result is set) through this queue's door. An idle
  // request, one that was never submitted, may be posted too: as a message to the thread of this queue.
  virtual void post(io_request& request) = 0;
};

}  // namespace aionbd::storage
