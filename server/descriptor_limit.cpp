#include "server/descriptor_limit.hpp"

#include <sys/resource.h>

#include <algorithm>

#include "server/log.hpp"

namespace aionbd::server {

namespace {

// The file, the listeners, the log, and what libraries open for a moment.
constexpr rlim_t beside_connections = 64;
// A loop's reactor, timers and wake-ups.
constexpr rlim_t for_each_loop = 8;

}  // namespace

void allow_descriptors(unsigned connections_max, unsigned threads) {
  const rlim_t wanted = beside_connections + for_each_loop * threads + connections_max;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == wanted) return;
  spdlog::warn(
      "--max-connections {} needs {} file descriptors and this process may have {}: raise it with ulimit -n, "
      "or "
      "LimitNOFILE= of the systemd unit",
      connections_max, wanted, limit.rlim_cur);
}

}  // namespace aionbd::server
