// A loop whose queue is native AIO, drained whenever the kernel wakes it.
#pragma once

#include "server/loop.hpp"
#include "server/storage_bridge.hpp"
#include "storage/aio_queue.hpp"

namespace aionbd::server {

struct aio_loop : loop {
  // Requests in the kernel at once. More wait their turn here: a disk gains nothing from a longer queue, and
  // fs.aio-max-nr is 65536 for the whole machine.
  static constexpr unsigned aio_depth = 1024;

  // `take` as aio_queue has it, for tests.
  explicit aio_loop(storage::offload_queue& blocking, storage::aio_queue::submit_call take = nullptr)
      : loop(aio), aio(aio_depth, blocking, take), bridge(context, aio, completions) {}

  storage::aio_queue aio;
  storage_bridge bridge;
};

}  // namespace aionbd::server
