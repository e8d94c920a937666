#include "tests/simulation/refused_memory.hpp"

#include <cstdint>
#include <cstdlib>
#include <new>

#include "tests/support/memory_of.hpp"

using aionbd::tests::memory_of;

namespace {

// One thread.
constexpr std::int64_t none = -1;
std::int64_t left_to_succeed = none;
bool refused = false;

bool is_refused() {
  if (left_to_succeed == none || left_to_succeed-- != 0) return false;
  return refused = true;
}

void* allocate(std::size_t size, std::size_t alignment) noexcept {
  if (memory_of::current() != memory_of::test && is_refused()) return nullptr;
  void* memory = nullptr;
  return ::posix_memalign(&memory, alignment, size == 0 ? 1 : size) == 0 ? memory : nullptr;
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
  void* const memory = allocate(size, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

constexpr std::size_t usual = alignof(std::max_align_t);

}  // namespace

// Asio's way to memory for coroutines and whatever waits. A coroutine that gets none to wait with takes its
// loop with it, which is Asio's affair; but who waits for the socket while completions are delivered is no
// coroutine.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  if (memory_of::current() == memory_of::completions && is_refused()) return nullptr;
  const memory_of unrefused(memory_of::test);
  return allocate(size, alignment);
}

void* operator new(std::size_t size) {
  return allocate_or_throw(size, usual);
}
void* operator new[](std::size_t size) {
  return allocate_or_throw(size, usual);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, usual);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, usual);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(memory);
}

namespace aionbd::tests {

refused_memory::refused_memory(std::size_t n) {
  refused = false;
  left_to_succeed = static_cast<std::int64_t>(n);
}

refused_memory::~refused_memory() {
  left_to_succeed = none;
}

bool refused_memory::happened() const {
  return refused;
}

}  // namespace aionbd::tests
