#include "server/deadly_signals.hpp"

#include <csignal>

namespace aionbd::server {

void outlive_failures() {
  // A write past the limit on the size of files (ulimit -f) is one for which there is no room.
  (void)std::signal(SIGXFSZ, SIG_IGN);
  // Whoever reads the log may go.
  (void)std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace aionbd::server
