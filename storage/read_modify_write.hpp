// An unaligned write on a disk that only takes whole blocks: read the blocks at its edges, put their old
// bytes around the payload, write everything at once. Whoever starts it holds the range lock on all its
// blocks.
//
//   disk      |........|........|........|........|
//   payload       |######################|              head = 4, tail = 6
//   1. read   |........|                 |........|     the first and the last block, into scratch
//   2. patch  |....####|########|########|##......|     scratch's edges around the payload in its buffer
//   3. write  |----------------------------------->|
#pragma once

#include <cstddef>
#include <cstdint>
#include <system_error>

#include "storage/alignment.hpp"
#include "storage/transfer.hpp"

namespace aionbd::storage {

class read_modify_write {
 public:
  struct target {
    io_queue* queue = nullptr;
    int fd = -1;
    std::uint64_t alignment = 1;
  };

  // Bytes of scratch that a write needs in front of its blocks: room for the first block and the last.
  static constexpr std::uint64_t scratch_length(std::uint64_t alignment) { return 2 * alignment; }

  // `memory`, aligned, is the scratch, then blocks.length bytes with the payload `head` bytes in; `blocks` is
  // not exact. The continuation runs from the queue's drain. This object and the memory stay put until then.
  void start(const target& where, const padded_range& blocks, std::byte* memory, bool durable, void* owner,
             transfer::continuation done);

  // The edges are read and the blocks on their way. For a continuation that is told of an error.
  bool has_begun_to_write() const { return writing_; }

  // Everything before this offset was written. For a continuation that is told of an error.
  std::uint64_t reached() const { return writing_ ? transfer_.reached() : blocks_.offset; }

 private:
  static void on_first_edge_read(void* self, std::error_code failure);
  static void on_edges_read(void* self, std::error_code failure);
  void read(std::uint64_t offset, std::uint64_t length, std::byte* into, transfer::continuation next);
  std::uint64_t last_block() const { return blocks_.end() - where_.alignment; }
  void patch_and_write();

  target where_;
  padded_range blocks_;
  std::byte* scratch_ = nullptr;  // the first block, then the last
  std::byte* content_ = nullptr;  // of the blocks
  bool durable_ = false;
  bool writing_ = false;  // the last step
  void* owner_ = nullptr;
  transfer::continuation done_ = nullptr;
  transfer transfer_;
};

}  // namespace aionbd::storage
