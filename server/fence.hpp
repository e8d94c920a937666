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

// Told on the thread of the member's queue, by its drain: nothing may be thrown.
class fence_listener {
 public:
  // Nobody is ahead any more.
  virtual void way_is_free() noexcept = 0;
  // Somebody has waited for this one for too long: see member::is_barred().
  virtual void was_barred() noexcept = 0;

 protected:
  ~fence_listener() = default;
};

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

    // Before the first request is begun. True: nobody is ahead. False: the listener will be told once, when
    // the way is free. It will also be told when this one is barred, but not if that has happened by now. Who
    // is barred already is ahead of nobody. Throws std::system_error when it cannot be known who is gone.
    [[nodiscard]] bool enter(fence_listener& listener);
    // Those ahead begin nothing more, and are told so.
    void bar_those_ahead() noexcept;
    // Waits for nobody any more. False if the listener will be told of a free way all the same: live until
    // then.
    [[nodiscard]] bool stop_waiting() noexcept;

    // Somebody has waited for this one for too long: it must not begin any more.
    const std::atomic<bool>& is_barred() const { return is_barred_; }
    // It begins nothing more. May be called again.
    void leave() noexcept;
    // The listener will still be told that this one is barred: live until then. After leave() that does not
    // begin any more.
    bool is_word_of_bar_under_way() const noexcept;

   private:
    static void keep_who_has_hung_up(std::vector<member*>& of);
    void bar() noexcept;  // with the fence's mutex held

    fence& fence_;
    const int fd_;
    storage::io_queue& home_;
    fence_listener* listener_ = nullptr;  // once it has entered; guarded by the fence's mutex
    storage::io_request way_is_free_;
    storage::io_request was_barred_;
    std::vector<member*> ahead_;             // guarded by the fence's mutex
    bool is_word_of_bar_under_way_ = false;  // likewise
    std::atomic<bool> is_barred_ = false;
  };

 private:
  std::mutex mutex_;
  std::vector<member*> members_;  // in order of arrival
};

}  // namespace aionbd::server
