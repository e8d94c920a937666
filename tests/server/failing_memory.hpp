// While it lives, `new` of exactly so many bytes fails: a way to have an exception where no input causes one.
#pragma once

#include <cstddef>

namespace aionbd::tests {

class failing_memory {
 public:
  explicit failing_memory(std::size_t size);
  failing_memory(const failing_memory&) = delete;
  failing_memory& operator=(const failing_memory&) = delete;
  ~failing_memory();
};

}  // namespace aionbd::tests
