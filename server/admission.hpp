// Who is let in: asked once for each connection, when it is accepted and before it is sent a byte. Looks at
// the address, at how many are connected, and at how many of these come from the same place. Any thread.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "server/access_list.hpp"
#include "server/peer_address.hpp"

namespace aionbd::server {

struct admission_limits {
  unsigned connections_max = 64;
  unsigned per_address_max = 32;
  std::vector<network> allowed{};  // empty: everybody
};

class admission {
 public:
  explicit admission(admission_limits limits) : limits_(std::move(limits)) {}

  // Lets it in and counts it, until leave(); or says why not. Throws std::bad_alloc, and then has done
  // nothing.
  [[nodiscard]] std::optional<std::string> enter(const peer_address& who);
  // How many are left.
  unsigned leave(const peer_address& who);

  [[nodiscard]] unsigned present() const;

 private:
  const admission_limits limits_;
  mutable std::mutex mutex_;
  unsigned present_ = 0;
  std::map<peer_address, unsigned> by_origin_;  // none is 0
};

}  // namespace aionbd::server
