// Joins a loop's aio_queue to its io_context: the eventfd wakes the reactor, the queue is drained, and
// whoever got completions then acts once for all of them. One thread, the loop's.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "server/completion_batch.hpp"
#include "storage/aio_queue.hpp"

namespace aionbd::server {

class storage_bridge {
 public:
  // The queue and the batch must outlive the bridge.
  storage_bridge(boost::asio::io_context& context, storage::aio_queue& queue, completion_batch& completions);
  ~storage_bridge();

 private:
  void watch();
  void drain();

  storage::aio_queue& queue_;
  completion_batch& completions_;
  boost::asio::posix::stream_descriptor wake_up_;
};

}  // namespace aionbd::server
