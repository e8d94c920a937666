// Every `new` of a test program, so that a test may refuse memory to it. A program that wants this compiles
// replaced_new.cpp.
#pragma once

#include <cstddef>

namespace aionbd::tests {

// Asked before each allocation, on its thread, with the bytes that are wanted: true refuses it. It allocates
// nothing itself.
using memory_refusal = bool (*)(std::size_t size);

// From now on; null: everything is given again.
void refuse_memory(memory_refusal when) noexcept;

// As `new` gives it, or null.
[[nodiscard]] void* allocate_unless_refused(std::size_t size, std::size_t alignment) noexcept;

}  // namespace aionbd::tests
