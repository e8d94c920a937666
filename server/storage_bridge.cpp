#include "server/storage_bridge.hpp"

namespace aionbd::server {

storage_bridge::storage_bridge(boost::asio::io_context& context, storage::aio_queue& queue,
                               completion_batch& completions)
    : queue_(queue), completions_(completions), wake_up_(context, queue.event_fd()) {
  watch();
}

// The eventfd is the queue's: Asio gives it back unclosed.
storage_bridge::~storage_bridge() {
  wake_up_.release();
}

void storage_bridge::watch() {
  wake_up_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                      [this](boost::system::error_code failure) {
                        if (failure) return;  // only when the bridge goes
                        drain();
                        watch();
                      });
}

void storage_bridge::drain() {
  queue_.drain();
  completions_.end();
}

}  // namespace aionbd::server
