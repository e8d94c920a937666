// Says in the log what failed on the device, in full, before it is flattened to what NBD can say. A disk that
// fails every request does not flood the log: one line a second for each connection, with a count of the
// rest.
#pragma once

#include <string>
#include <system_error>

#include "protocol/requests.hpp"
#include "server/rare_line.hpp"

namespace aionbd::server {

class failure_log {
 public:
  explicit failure_log(std::string peer) : peer_(std::move(peer)) {}
  // A line that there is no memory for is not written.
  void add(const protocol::request& asked, const std::error_code& why) noexcept;

 private:
  std::string peer_;
  rare_line limit_;
};

}  // namespace aionbd::server
