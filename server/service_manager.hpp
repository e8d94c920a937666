// Tells the service manager (systemd) how the server is doing, by the protocol of sd_notify(3). The
// connection is made once, at start: later the server may make no sockets. One thread at a time.
#pragma once

#include <string_view>

#include "storage/file_descriptor.hpp"

namespace aionbd::server {

class service_manager {
 public:
  // Connects to NOTIFY_SOCKET; without that, nobody is told anything.
  service_manager();

  // "READY=1", "STOPPING=1", ...; a manager that does not listen is no matter.
  void tell(std::string_view state) const;

 private:
  storage::file_descriptor socket_;
};

}  // namespace aionbd::server
