#include "tests/server/failing_memory.hpp"

#include <atomic>

#include "tests/support/replaced_new.hpp"

namespace {

std::atomic<std::size_t> failing_size = 0;

}  // namespace

namespace aionbd::tests {

failing_memory::failing_memory(std::size_t size) {
  failing_size = size;
  refuse_memory([](std::size_t wanted) { return wanted == failing_size; });
}

failing_memory::~failing_memory() {
  refuse_memory(nullptr);
}

}  // namespace aionbd::tests
