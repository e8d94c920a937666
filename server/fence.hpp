// Keeps what a client said on a connection that it has lost from overtaking what it says on its next one.
// Writes that were begun are kept in order by the device; this is about those that still lie unread, or wait
// for room, in the session of the old connection, and about trims and zeroes, which go in steps. A new
// session begins nothing before those that were there earlier, and whose clients have hung up by then, have
// begun the last of theirs and gone the last step. Nobody can tell whose connections are whose, so it is
// anybody's. One for each export; its members live on any loop.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "storage/io_queue.hpp"

namespace aionbd::server {

class fence {
 public:
  // A connection, from before its client may send a first request until it begins nothing more.
  class member {
   public:
    // `fd` is the stream to the client, `home` the queue of the connection's loop.
    member(fence& of, int fd, storage::io_queue& home);
    member(const member&) = delete;
    member& operator=(const member&) = delete;
    ~member() { leave(); }

    // Before the first request is begun. True: nobody is ahead. False: `way_is_free` will be called with
    // `owner` in the request, once, from the queue's drain.
    [[nodiscard]] bool enter(void* owner, void (*way_is_free)(storage::io_request&));
    // Those ahead begin nothing more.
    void bar_those_ahead() noexcept;
    // Waits for nobody any more. False if `way_is_free` will be called all the same: live until then.
    [[nodiscard]] bool stop_waiting() noexcept;

    // Somebody has waited for this one for too long: it must not begin any more.
    const std::atomic<bool>& is_barred() const { return is_barred_; }
    // It begins nothing more. May be called again.
    void leave() noexcept;

   private:
    fence& fence_;
    const int fd_;
    storage::io_queue& home_;
    storage::io_request message_;
    std::vector<member*> ahead_;  // guarded by the fence's mutex
    std::atomic<bool> is_barred_ = false;
  };

 private:
  std::mutex mutex_;
  std::vector<member*> members_;  // in order of arrival
};

}  // namespace aionbd::server
