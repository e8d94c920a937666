// While it lives, one allocation of the server's is refused: the n-th from now on, counted from 0.
#pragma once

#include <cstddef>

namespace aionbd::tests {

class refused_memory {
 public:
  explicit refused_memory(std::size_t n);
  refused_memory(const refused_memory&) = delete;
  refused_memory& operator=(const refused_memory&) = delete;
  ~refused_memory();

  bool happened() const;
};

}  // namespace aionbd::tests
