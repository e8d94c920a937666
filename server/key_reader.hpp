// Reads the keys of TLS again on a thread of its own: a file system may take its time over that, or never
// come back, and clients have none for either.
#pragma once

#include <atomic>
#include <boost/asio/thread_pool.hpp>

#include "server/tls_context.hpp"

namespace aionbd::server {

class key_reader {
 public:
  // `keys` must outlive it. Throws boost::system::system_error when the system has no room for the thread.
  explicit key_reader(tls_keys& keys) : keys_(keys), thread_(1) {}

  // What comes of it is said in the log. Any thread, which does not wait.
  void read_again_soon();

  // It has been asked to and has not done it. Who destroys it then waits for the file system.
  bool is_busy() const { return asked_for_ != 0; }

 private:
  void read_again();

  tls_keys& keys_;
  std::atomic<unsigned> asked_for_ = 0;
  boost::asio::thread_pool thread_;  // first to go: it uses the others
};

}  // namespace aionbd::server
