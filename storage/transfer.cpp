#include "storage/transfer.hpp"

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "storage/alignment.hpp"

namespace aionbd::storage {

namespace {

// The kernel's own limit for one read or write, rounded to any alignment we serve.
constexpr std::uint64_t piece_max = std::uint64_t{1} << 30;

}  // namespace

void transfer::start(io_queue& queue, const range& what, void* owner, continuation done) {
  assert(what.length > 0);
  queue_ = &queue;
  alignment_ = what.alignment;
  left_ = what.length;
  owner_ = owner;
  done_ = done;

  io_.op = what.op;
  io_.fd = what.fd;
  io_.offset = what.offset;
  io_.memory = what.memory;
  io_.durable = what.durable;
  io_.owner = this;
  io_.hook = &transfer::on_completion;
  submit_rest();
}

void transfer::submit_rest() {
  io_.length = std::min(left_, piece_max);
  queue_->submit(io_);
}

void transfer::on_completion(io_request& request) {
  static_cast<transfer*>(request.owner)->take(request.result);
}

void transfer::take(std::int64_t result) {
  if (result < 0) return done_(owner_, std::error_code(static_cast<int>(-result), std::system_category()));

  const auto bytes = static_cast<std::uint64_t>(result);
  if (bytes >= left_) return done_(owner_, {});

  // A short count that is no multiple of the alignment ends inside a block; the block is asked for again
  // whole.
  const std::uint64_t progress = round_down(bytes, alignment_);
  if (progress == 0) {
    // Nothing more is there: the file was cut off underneath us.
    return done_(owner_, std::error_code(EIO, std::system_category()));
  }
  io_.offset += progress;
  io_.memory += progress;
  left_ -= progress;
  submit_rest();
}

}  // namespace aionbd::storage
