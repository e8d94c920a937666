#include "server/reply_writer.hpp"

#include <array>
#include <new>
#include <utility>

namespace aionbd::server {

namespace {

// Pieces of one gathered write: far below the system's limit of 1024.
constexpr std::size_t pieces_max = 256;

}  // namespace

reply_writer::reply_writer(transport& to, release released, progress progressed)
    : to_(to), released_(std::move(released)), progressed_(std::move(progressed)) {}

void reply_writer::add(request_slot& ready) {
  ready.next = nullptr;
  (last_ != nullptr ? last_->next : first_) = &ready;
  last_ = &ready;
}

void reply_writer::send() {
  if (waiting_) return;
  while (first_ != nullptr && !failure_) {
    if (!send_batch()) break;
  }
  if (first_ == nullptr && !failure_ && to_.has_unsent()) (void)to_.send_now({}, failure_);
  if (failure_) return give_up();
  if (first_ != nullptr || to_.has_unsent()) wait_until_writable();
}

// False when the socket is full or broken.
bool reply_writer::send_batch() {
  std::array<iovec, pieces_max> pieces;
  std::size_t count = 0;
  std::size_t offered = 0;
  std::size_t skip = sent_of_first_;
  for (request_slot* slot = first_; slot != nullptr; slot = slot->next) {
    for (const iovec& piece : slot->reply.pieces) {
      if (skip >= piece.iov_len) {
        skip -= piece.iov_len;
        continue;
      }
      if (count == pieces.size()) break;
      pieces[count] = {static_cast<std::byte*>(piece.iov_base) + skip, piece.iov_len - skip};
      offered += pieces[count++].iov_len;
      skip = 0;
    }
    if (count == pieces.size()) break;
  }
  const std::size_t sent = to_.send_now({pieces.data(), count}, failure_);
  advance(sent);
  return sent == offered;
}

void reply_writer::advance(std::size_t sent) {
  sent_of_first_ += sent;
  while (first_ != nullptr && sent_of_first_ >= first_->reply.length) {
    sent_of_first_ -= first_->reply.length;
    release_first();
  }
}

void reply_writer::release_first() {
  request_slot& done = *first_;
  first_ = done.next;
  if (first_ == nullptr) last_ = nullptr;
  released_(done);
}

// The peer may live, and would wait for ever for what is dropped here.
void reply_writer::give_up() {
  to_.shut_down();
  while (first_ != nullptr) release_first();
}

void reply_writer::wait_until_writable() {
  try {
    to_.when_writable([this](boost::system::error_code) {
      waiting_ = false;
      send();
      progressed_();
    });
    waiting_ = true;
  } catch (const std::bad_alloc&) {
    // Nobody would come back to the rest: the stream is as good as broken.
    failure_ = std::make_error_code(std::errc::not_enough_memory);
    give_up();
  }
}

}  // namespace aionbd::server
