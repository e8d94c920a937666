#include "tests/simulation/refused_memory.hpp"

#include <cstdint>
#include <cstdlib>

#include "tests/support/memory_of.hpp"
#include "tests/support/replaced_new.hpp"

using aionbd::tests::memory_of;

namespace {

// One thread.
constexpr std::int64_t none = -1;
std::int64_t left_to_succeed = none;
bool refused = false;

bool is_next_refused() {
  if (left_to_succeed == none || left_to_succeed-- != 0) return false;
  return refused = true;
}

bool is_servers_and_next_refused(std::size_t) {
  return memory_of::current() != memory_of::test && is_next_refused();
}

}  // namespace

// Asio's way to memory for coroutines and whatever waits. A coroutine that gets none to wait with takes its
// loop with it, which is Asio's affair; but who waits for the socket while completions are delivered is no
// coroutine.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  if (memory_of::current() == memory_of::completions && is_next_refused()) return nullptr;
  const memory_of unrefused(memory_of::test);
  return aionbd::tests::allocate_unless_refused(size, alignment);
}

namespace aionbd::tests {

refused_memory::refused_memory(std::size_t n) {
  refused = false;
  left_to_succeed = static_cast<std::int64_t>(n);
  refuse_memory(&is_servers_and_next_refused);
}

refused_memory::~refused_memory() {
  refuse_memory(nullptr);
  left_to_succeed = none;
}

bool refused_memory::happened() const {
  return refused;
}

}  // namespace aionbd::tests
