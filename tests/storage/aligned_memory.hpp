// Memory of exactly the size and alignment asked for, from the heap, so that AddressSanitizer sees any byte
// too many.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace aionbd::storage {

struct aligned_delete {
  std::align_val_t alignment{1};
  void operator()(std::byte* memory) const { ::operator delete(memory, alignment); }
};
using aligned_memory = std::unique_ptr<std::byte, aligned_delete>;

inline aligned_memory allocate_aligned(std::uint64_t size, std::uint64_t alignment) {
  const std::align_val_t boundary{std::max<std::size_t>(alignment, sizeof(void*))};
  return {static_cast<std::byte*>(::operator new(size, boundary)), aligned_delete{boundary}};
}

}  // namespace aionbd::storage
