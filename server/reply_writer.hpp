// The one place that sends replies: those that are ready go out in one gathered write, in the order in which
// they became ready; what the socket does not take now goes when it is writable again.
#pragma once

#include <cstddef>
#include <functional>
#include <system_error>

#include "server/request_slot.hpp"
#include "server/transport.hpp"

namespace aionbd::server {

class reply_writer {
 public:
  // Called for each slot whose reply the transport has taken, or will never take: its buffer is no longer
  // read.
  using release = std::function<void(request_slot&)>;
  // Called after a wait for the socket, when some replies went out or sending failed.
  using progress = std::function<void()>;

  reply_writer(transport& to, release released, progress progressed);
  reply_writer(const reply_writer&) = delete;
  reply_writer& operator=(const reply_writer&) = delete;

  void add(request_slot& ready);
  void send();

  // A wait for the socket is under way: the writer must live until it ends, which a shut-down brings about.
  bool is_waiting() const { return waiting_; }
  // Set once sending failed; from then on replies are released unsent.
  const std::error_code& failure() const { return failure_; }

 private:
  bool send_batch();
  void advance(std::size_t sent);
  void give_up();
  void wait_until_writable();
  void release_first();

  transport& to_;
  release released_;
  progress progressed_;
  request_slot* first_ = nullptr;
  request_slot* last_ = nullptr;
  std::size_t sent_of_first_ = 0;  // bytes of the first reply that are out already
  bool waiting_ = false;
  std::error_code failure_;
};

}  // namespace aionbd::server
