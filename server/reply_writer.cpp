#include "server/reply_writer.hpp"

#include <array>
#include <utility>

namespace aionbd::server {

namespace {

// Replies of one gathered write; two pieces each, far below the system's limit of 1024.
constexpr std::size_t batch_max = 128;

std::size_t reply_length(const request_slot& slot) {
  return slot.header.size() + slot.reply_payload;
}

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
  if (failure_) return drop_all();
  if (first_ != nullptr) wait_until_writable();
}

// False when the socket is full or broken.
bool reply_writer::send_batch() {
  std::array<iovec, 2 * batch_max> pieces;
  std::size_t count = 0;
  std::size_t offered = 0;
  std::size_t skip = sent_of_first_;
  for (request_slot* slot = first_; slot != nullptr && count + 2 <= pieces.size(); slot = slot->next) {
    if (skip < slot->header.size()) {
      pieces[count++] = {slot->header.data() + skip, slot->header.size() - skip};
      skip = slot->header.size();
    }
    const std::size_t payload_skip = skip - slot->header.size();
    if (slot->reply_payload > payload_skip) {
      pieces[count++] = {slot->payload + payload_skip, slot->reply_payload - payload_skip};
    }
    offered += reply_length(*slot);
    skip = 0;
  }
  offered -= sent_of_first_;
  const std::size_t sent = to_.send_now({pieces.data(), count}, failure_);
  advance(sent);
  return sent == offered;
}

void reply_writer::advance(std::size_t sent) {
  sent_of_first_ += sent;
  while (first_ != nullptr && sent_of_first_ >= reply_length(*first_)) {
    sent_of_first_ -= reply_length(*first_);
    release_first();
  }
}

void reply_writer::release_first() {
  request_slot& done = *first_;
  first_ = done.next;
  if (first_ == nullptr) last_ = nullptr;
  released_(done);
}

void reply_writer::drop_all() {
  while (first_ != nullptr) release_first();
}

void reply_writer::wait_until_writable() {
  waiting_ = true;
  to_.when_writable([this](boost::system::error_code) {
    waiting_ = false;
    send();
    progressed_();
  });
}

}  // namespace aionbd::server
