// Joins a loop's aio_queue to its io_context: the eventfd wakes the reactor, the queue is drained, and
// whoever got completions then acts once for all of them. One thread, the loop's.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <vector>

#include "storage/aio_queue.hpp"

namespace aionbd::server {

// Somebody with completions: told once a drain, after all of them were delivered.
class completion_batch_listener {
 public:
  virtual void after_completions() = 0;

 protected:
  ~completion_batch_listener() = default;
};

class storage_bridge {
 public:
  // The queue must outlive the bridge, and every listener the calls it asked for.
  storage_bridge(boost::asio::io_context& context, storage::aio_queue& queue);
  ~storage_bridge();

  // From a completion hook: call listener.after_completions() once this drain is over. Ask once per drain.
  void call_after_drain(completion_batch_listener& listener) { listeners_.push_back(&listener); }

 private:
  void watch();
  void drain();

  storage::aio_queue& queue_;
  boost::asio::posix::stream_descriptor wake_up_;
  std::vector<completion_batch_listener*> listeners_;
};

}  // namespace aionbd::server
