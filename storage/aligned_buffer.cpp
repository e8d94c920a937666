#include "storage/aligned_buffer.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <iterator>
#include <new>

#include "storage/alignment.hpp"

namespace aionbd::storage {

// A huge page, cut into blocks of one size.
struct aligned_buffer::chunk {
  chunk() = default;
  chunk(const chunk&) = delete;
  chunk& operator=(const chunk&) = delete;
  ~chunk() {
    if (memory != nullptr) ::munmap(memory, buffer_pool::chunk_size);
  }

  std::byte* memory = nullptr;
  std::size_t size_class = 0;
  std::size_t blocks_out = 0;
  std::vector<std::uint16_t> free_blocks;  // last in, first out
};

namespace {

constexpr std::size_t block_size_of(std::size_t size_class) {
  return buffer_pool::block_size_min << size_class;
}

// Anonymous memory whose address is a multiple of 2 MiB, so that one huge page can back each 2 MiB of it.
std::byte* map_aligned(std::size_t size) {
  const std::size_t room = size + buffer_pool::chunk_size;
  void* const mapped = ::mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;

  std::byte* const begin = static_cast<std::byte*>(mapped);
  void* aligned = begin;
  std::size_t left = room;
  std::align(buffer_pool::chunk_size, size, aligned, left);
  std::byte* const data = static_cast<std::byte*>(aligned);
  const auto before = static_cast<std::size_t>(data - begin);
  if (before != 0) ::munmap(begin, before);
  if (room - before > size) ::munmap(data + size, room - before - size);

  // Advice only: without huge pages the memory works all the same, in 4 KiB pages.
  (void)::madvise(data, size, MADV_HUGEPAGE);
  return data;
}

}  // namespace

aligned_buffer::~aligned_buffer() {
  if (data_ != nullptr) pool_->release(*this);
}

buffer_pool::buffer_pool(std::size_t pooled_bytes_max) : chunks_max_(pooled_bytes_max / chunk_size) {
  spares_.reserve(spare_bytes_max / chunk_size);
}

buffer_pool::~buffer_pool() {
  assert(buffers_out_ == 0);
  for (const spare& each : spares_) ::munmap(each.memory, each.size);
}

std::size_t buffer_pool::class_of(std::size_t size) {
  const std::size_t block = std::bit_ceil(std::max(size, block_size_min));
  return static_cast<std::size_t>(std::countr_zero(block) - std::countr_zero(block_size_min));
}

std::size_t buffer_pool::occupied_by(std::size_t size) {
  if (size > chunk_size) return round_up(size, chunk_size);
  return block_size_of(class_of(size));
}

aligned_buffer buffer_pool::acquire(std::size_t size) noexcept {
  assert(size > 0);
  if (size > chunk_size) return acquire_unpooled(size);

  const std::size_t size_class = class_of(size);
  chunk* from = nullptr;
  try {
    from = chunk_for(size_class);
  } catch (const std::bad_alloc&) {
    return {};  // not even for the pool's own lists
  }
  if (from == nullptr) return acquire_unpooled(size);

  const std::size_t index = from->free_blocks.back();
  from->free_blocks.pop_back();
  if (from->free_blocks.empty()) with_free_blocks_[size_class].pop_back();
  ++from->blocks_out;
  ++buffers_out_;

  aligned_buffer buffer;
  buffer.data_ = from->memory + index * block_size_of(size_class);
  buffer.size_ = block_size_of(size_class);
  buffer.pool_ = this;
  buffer.chunk_ = from;
  return buffer;
}

buffer_pool::chunk* buffer_pool::chunk_for(std::size_t size_class) {
  auto& candidates = with_free_blocks_[size_class];
  if (!candidates.empty()) return candidates.back();

  chunk* const fresh = chunks_.size() < chunks_max_ ? map_chunk() : take_idle_chunk();
  if (fresh == nullptr) return nullptr;
  // For all of them, that giving a block back needs no memory.
  candidates.reserve(chunks_.size());
  carve(*fresh, size_class);
  candidates.push_back(fresh);
  return fresh;
}

buffer_pool::chunk* buffer_pool::map_chunk() {
  auto fresh = std::make_unique<chunk>();
  std::byte* const memory = fresh->memory = map_aligned(chunk_size);
  if (memory == nullptr) return nullptr;
#ifdef MADV_POPULATE_WRITE
  // Fault the pages in now, once, instead of in the middle of requests. A refusal only means they come later.
  (void)::madvise(memory, chunk_size, MADV_POPULATE_WRITE);
#endif
  return chunks_.emplace_back(std::move(fresh)).get();
}

// A chunk of any class none of whose blocks is out: when the pool is full, the sizes in demand take over the
// memory of those that were.
buffer_pool::chunk* buffer_pool::take_idle_chunk() {
  for (auto& owned : chunks_) {
    if (owned->blocks_out != 0) continue;
    std::erase(with_free_blocks_[owned->size_class], owned.get());
    return owned.get();
  }
  return nullptr;
}

void buffer_pool::carve(chunk& into, std::size_t size_class) {
  into.size_class = size_class;
  const std::size_t blocks = chunk_size / block_size_of(size_class);
  into.free_blocks.resize(blocks);
  for (std::size_t i = 0; i < blocks; ++i) into.free_blocks[i] = static_cast<std::uint16_t>(blocks - 1 - i);
}

aligned_buffer buffer_pool::acquire_unpooled(std::size_t size) {
  aligned_buffer buffer;
  buffer.size_ = occupied_by(size);
  if (size > chunk_size) {
    buffer.data_ = map_large(buffer.size_);
  } else {
    void* const memory = ::operator new (buffer.size_, std::align_val_t{buffer.size_}, std::nothrow);
    buffer.data_ = static_cast<std::byte*>(memory);
  }
  if (buffer.data_ == nullptr) return {};
  buffer.pool_ = this;
  ++buffers_out_;
  return buffer;
}

std::byte* buffer_pool::map_large(std::size_t size) {
  const auto same =
      std::find_if(spares_.rbegin(), spares_.rend(), [&](const spare& each) { return each.size == size; });
  if (same == spares_.rend()) return map_aligned(size);
  std::byte* const memory = same->memory;
  spares_.erase(std::next(same).base());
  spare_bytes_ -= size;
  return memory;
}

// The oldest ones make room.
void buffer_pool::keep_or_unmap(std::byte* memory, std::size_t size) noexcept {
  if (size > spare_bytes_max) {
    ::munmap(memory, size);
    return;
  }
  while (spare_bytes_ + size > spare_bytes_max) {
    ::munmap(spares_.front().memory, spares_.front().size);
    spare_bytes_ -= spares_.front().size;
    spares_.erase(spares_.begin());
  }
  spares_.push_back({memory, size});
  spare_bytes_ += size;
}

void buffer_pool::release(aligned_buffer& buffer) noexcept {
  --buffers_out_;
  if (chunk* const home = buffer.chunk_; home != nullptr) {
    const auto distance = static_cast<std::size_t>(buffer.data_ - home->memory);
    if (home->free_blocks.empty()) with_free_blocks_[home->size_class].push_back(home);
    home->free_blocks.push_back(static_cast<std::uint16_t>(distance / buffer.size_));
    --home->blocks_out;
  } else if (buffer.size_ > chunk_size) {
    keep_or_unmap(buffer.data_, buffer.size_);
  } else {
    ::operator delete (buffer.data_, std::align_val_t{buffer.size_});
  }
}

}  // namespace aionbd::storage
