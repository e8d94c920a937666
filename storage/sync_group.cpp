#include "storage/sync_group.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace aionbd::storage {

namespace {

void deliver(io_request& message) {
  auto* const flush = static_cast<sync_group::waiter*>(message.owner);
  flush->done(flush->owner, flush->failure);
}

}  // namespace

bool is_want_of_room(std::error_code failure) {
  return failure == std::errc::no_space_on_device || failure == std::errc::file_too_large ||
         failure == std::error_code(EDQUOT, std::system_category());
}

void sync_group::join(waiter& flush) {
  flush.next = nullptr;
  {
    const std::lock_guard guard(mutex_);
    if (waiting_.last != nullptr) {
      waiting_.last->next = &flush;
    } else {
      waiting_.first = &flush;
    }
    waiting_.last = &flush;
    // The sync that is running may have passed the data this flush is about; the next one has not.
    if (running_) return;
    running_ = true;
    served_ = std::exchange(waiting_, {});
  }
  begin(*flush.queue);
}

void sync_group::begin(io_queue& queue) {
  runner_ = &queue;
  io_.op = io_op::sync;
  io_.fd = fd_;
  io_.owner = this;
  io_.hook = &sync_group::on_synced;
  queue.submit(io_);
}

void sync_group::on_synced(io_request& request) {
  static_cast<sync_group*>(request.owner)->end();
}

void sync_group::end() {
  const std::error_code failure = io_.result < 0
                                      ? std::error_code(static_cast<int>(-io_.result), std::system_category())
                                      : std::error_code();
  if (failure) note_failure(failure);

  io_queue& runner = *runner_;
  waiter_list done = std::exchange(served_, {});
  bool again = false;
  {
    const std::lock_guard guard(mutex_);
    served_ = std::exchange(waiting_, {});
    again = running_ = served_.first != nullptr;
  }
  if (again) begin(runner);

  while (waiter* const flush = done.first) {
    done.first = flush->next;
    flush->failure = failure;
    if (flush->queue == &runner) {
      flush->done(flush->owner, failure);
    } else {
      flush->message.owner = flush;
      flush->message.hook = &deliver;
      flush->queue->post(flush->message);
    }
  }
}

void sync_group::note_failure(std::error_code failure) {
  const std::lock_guard guard(mutex_);
  ++failures_;
  last_failure_ = failure;
  if (is_want_of_room(failure)) return;
  last_loss_ = failure;
  losses_end_ = failures_;
}

std::error_code sync_group::unheard_failure(sync_witness& witness) {
  const std::lock_guard guard(mutex_);
  const std::error_code news = news_since(witness.failures_seen);
  if (!news) return {};
  witness.failures_seen = failures_;
  if (witness.is_gone) return news;
  const bool is_news_for_the_departed = witness.departures == departures_;
  if (is_news_for_the_departed || departures_ == settled_departures_) {
    untold_from_ = failures_;
    settled_departures_ = departures_;
  }
  return news;
}

std::uint64_t sync_group::failures() {
  const std::lock_guard guard(mutex_);
  return failures_;
}

std::error_code sync_group::failure_since(std::uint64_t failures) {
  const std::lock_guard guard(mutex_);
  return news_since(failures);
}

std::error_code sync_group::news_since(std::uint64_t failures) const {
  if (failures == failures_) return {};
  return failures < losses_end_ ? last_loss_ : last_failure_;
}

sync_witness sync_group::new_witness() {
  const std::lock_guard guard(mutex_);
  return {.failures_seen = untold_from_, .failures_before = untold_from_, .departures = departures_};
}

void sync_group::dismiss(sync_witness& witness, bool is_lost) {
  const std::lock_guard guard(mutex_);
  witness.is_gone = true;
  const std::uint64_t surely_heard = is_lost ? witness.failures_before : witness.failures_seen;
  // Nothing may have failed yet when a client is lost, but before it is back.
  if (surely_heard == failures_ && !is_lost) return;
  untold_from_ = std::min(untold_from_, surely_heard);
  ++departures_;
}

}  // namespace aionbd::storage
