// One event loop with everything that only its thread touches: the reactor, the AIO queue, the buffers.
// A connection lives on one loop for life.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <set>

#include "server/storage_bridge.hpp"
#include "storage/aio_queue.hpp"
#include "storage/aligned_buffer.hpp"

namespace aionbd::server {

class connection;

struct loop {
  // Requests in the kernel at once. More wait their turn here: a disk gains nothing from a longer queue, and
  // fs.aio-max-nr is 65536 for the whole machine.
  static constexpr unsigned aio_depth = 1024;

  explicit loop(storage::offload_queue& blocking) : queue(aio_depth, blocking), bridge(context, queue) {}

  boost::asio::io_context context{1};  // a hint to Asio: one thread runs it
  storage::aio_queue queue;
  storage::buffer_pool buffers;
  storage_bridge bridge;
  std::set<connection*> connections;  // each puts itself in and takes itself out
};

}  // namespace aionbd::server
