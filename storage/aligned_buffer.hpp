// Memory for direct I/O: aligned, pre-faulted, on huge pages where the kernel has them, and reused.
// A pool and all its buffers belong to one thread. Memory kept by a pool is bounded; what goes past the
// bound is still served, from pages that are given back at release.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace aionbd::storage {

class buffer_pool;

// One block of memory, returned to its pool by the destructor. The content is whatever was there before:
// a reader must overwrite every byte it passes on. Empty (data() == nullptr) when default-constructed.
class aligned_buffer {
 public:
  aligned_buffer() = default;
  aligned_buffer(aligned_buffer&& other) noexcept { swap(other); }
  aligned_buffer& operator=(aligned_buffer&& other) noexcept {
    aligned_buffer(std::move(other)).swap(*this);
    return *this;
  }
  ~aligned_buffer();

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }  // bytes; at least what was asked for
  explicit operator bool() const { return data_ != nullptr; }

 private:
  friend class buffer_pool;
  struct chunk;
  void swap(aligned_buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(pool_, other.pool_);
    std::swap(chunk_, other.chunk_);
  }

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  buffer_pool* pool_ = nullptr;
  chunk* chunk_ = nullptr;  // where the block was cut from; null for memory of its own
};

class buffer_pool {
 public:
  static constexpr std::size_t block_size_min = 4096;
  static constexpr std::size_t chunk_size = std::size_t{2} << 20;  // one huge page
  static constexpr std::size_t pooled_bytes_default = std::size_t{128} << 20;

  // Of buffers beyond chunk_size, which are mapped one by one: kept for the next of the same size, for
  // faulting in and giving back 32 MiB costs three times what is done with them.
  static constexpr std::size_t spare_bytes_max = std::size_t{64} << 20;

  // The pool keeps at most `pooled_bytes_max` bytes, mapped one chunk at a time when first needed, and beside
  // them the spares.
  explicit buffer_pool(std::size_t pooled_bytes_max = pooled_bytes_default);
  buffer_pool(const buffer_pool&) = delete;
  buffer_pool& operator=(const buffer_pool&) = delete;
  ~buffer_pool();  // every buffer must be back

  // A buffer of at least `size` bytes, size > 0. Its address is a multiple of its size rounded up to a power
  // of two, up to 2 MiB. Empty only when the system has no memory left.
  [[nodiscard]] aligned_buffer acquire(std::size_t size) noexcept;

  // The bytes an acquire(size) really occupies, for whoever keeps a budget.
  static std::size_t occupied_by(std::size_t size);

  std::size_t pooled_bytes() const { return chunks_.size() * chunk_size; }
  std::size_t spare_bytes() const { return spare_bytes_; }
  std::size_t buffers_out() const { return buffers_out_; }

 private:
  friend class aligned_buffer;
  using chunk = aligned_buffer::chunk;
  static constexpr std::size_t class_count = 10;  // 4 KiB, 8 KiB, ... 2 MiB

  static std::size_t class_of(std::size_t size);
  chunk* chunk_for(std::size_t size_class);
  chunk* map_chunk();
  chunk* take_idle_chunk();
  void carve(chunk& into, std::size_t size_class);
  aligned_buffer acquire_unpooled(std::size_t size);
  std::byte* map_large(std::size_t size);
  void keep_or_unmap(std::byte* memory, std::size_t size) noexcept;
  void release(aligned_buffer& buffer) noexcept;

  std::size_t chunks_max_;
  std::size_t buffers_out_ = 0;
  std::vector<std::unique_ptr<chunk>> chunks_;
  // Chunks of each class that have free blocks. The last one is used first, so that hot memory stays hot.
  std::array<std::vector<chunk*>, class_count> with_free_blocks_;

  struct spare {
    std::byte* memory;
    std::size_t size;
  };
  std::vector<spare> spares_;  // the most recent one last; room for all is reserved, so adding cannot throw
  std::size_t spare_bytes_ = 0;
};

}  // namespace aionbd::storage
