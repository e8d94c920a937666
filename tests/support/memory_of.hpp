// Whose memory is allocated just now: a loop's, that of completions while they are delivered, or the test's
// that plays with them. For tests that refuse the server some (simulation/refused_memory.hpp) while the disk
// in memory must go on.
#pragma once

namespace aionbd::tests {

class memory_of {
 public:
  enum owner { test, loop, completions };

  explicit memory_of(owner whose) : before_(current_) { current_ = whose; }
  memory_of(const memory_of&) = delete;
  memory_of& operator=(const memory_of&) = delete;
  ~memory_of() { current_ = before_; }

  static owner current() { return current_; }

 private:
  static inline thread_local owner current_ = test;
  const owner before_;
};

}  // namespace aionbd::tests
