// One event loop with everything that only its thread touches: the reactor, the queue to the disk, the
// buffers. A connection lives on one loop for life. Which kind of queue it is, nobody needs to know here: the
// program's loops have native AIO (aio_loop.hpp), tests have a disk in memory.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <set>

#include "server/completion_batch.hpp"
#include "server/rare_line.hpp"
#include "storage/aligned_buffer.hpp"
#include "storage/io_queue.hpp"

namespace aionbd::server {

class connection;

struct loop {
  // The queue must outlive the loop's connections. Whoever drains it then ends `completions`.
  explicit loop(storage::io_queue& to_disk,
                std::size_t pooled_bytes_max = storage::buffer_pool::pooled_bytes_default)
      : queue(to_disk), buffers(pooled_bytes_max) {}

  boost::asio::io_context context{1};  // a hint to Asio: one thread runs it
  storage::io_queue& queue;
  storage::buffer_pool buffers;
  completion_batch completions;
  rare_line troubles{10};             // what the log says of clients that break off or break the protocol
  std::set<connection*> connections;  // each puts itself in and takes itself out
};

}  // namespace aionbd::server
