// Those who got completions in the drain that is under way, each to act once for all of its own when the
// drain is over. One for each loop, its thread's only. A chain through the listeners: nothing is allocated.
#pragma once

#include <utility>

namespace aionbd::server {

// Somebody with completions.
class completion_batch_listener {
 public:
  // All completions of a drain were delivered.
  virtual void after_completions() = 0;

  completion_batch_listener* next = nullptr;  // the batch's own

 protected:
  ~completion_batch_listener() = default;
};

class completion_batch {
 public:
  // From a completion hook: call listener.after_completions() once this drain is over. Ask once per drain;
  // the listener must live until the call.
  void call_after_drain(completion_batch_listener& listener) noexcept {
    listener.next = nullptr;
    (last_ != nullptr ? last_->next : first_) = &listener;
    last_ = &listener;
  }

  // The drain is over. A listener may start new requests, but their completions come by a later drain.
  void end() {
    completion_batch_listener* listener = std::exchange(first_, nullptr);
    last_ = nullptr;
    while (listener != nullptr) std::exchange(listener, listener->next)->after_completions();
  }

 private:
  completion_batch_listener* first_ = nullptr;
  completion_batch_listener* last_ = nullptr;
};

}  // namespace aionbd::server
