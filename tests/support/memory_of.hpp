// Whose memory is allocated just now: the server's, or the test's that plays with it. For tests that refuse
// the server some (simulation/refused_memory.hpp) while the disk in memory must go on.
#pragma once

namespace aionbd::tests {

class memory_of {
 public:
  enum owner { test, server };

  explicit memory_of(owner whose) : before_(current_) { current_ = whose; }
  memory_of(const memory_of&) = delete;
  memory_of& operator=(const memory_of&) = delete;
  ~memory_of() { current_ = before_; }

  static bool is_the_servers() { return current_ == server; }

 private:
  static inline thread_local owner current_ = test;
  const owner before_;
};

}  // namespace aionbd::tests
