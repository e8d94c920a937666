#include "server/announcement.hpp"

#include <fmt/format.h>

#include "server/log.hpp"

namespace aionbd::server {

namespace {

void say_who_can_come_in(const server& running) {
  using protocol::tls_policy;
  const char* why = "can use the disk, and anyone on the path can read it: there is no TLS";
  if (const tls_keys* const keys = running.keys()) {
    for (const auto& each : keys->current()->warnings()) spdlog::warn("{}", each);
    spdlog::info("TLS is {}: {}", keys->policy() == tls_policy::required ? "required" : "allowed",
                 keys->current()->describe());
    if (keys->policy() == tls_policy::allowed) {
      why = "can use the disk, and anyone on the path can read it: TLS is not required";
    } else if (keys->current()->lets_anybody_in()) {
      why = "can use the disk: without a ca-cert.pem, clients need no key of their own";
    } else {
      return;
    }
  }
  for (const auto& each : running.listeners()) {
    if (each.is_for_others) spdlog::warn("anyone who reaches {} {}", each.address, why);
  }
}

}  // namespace

void announce(const storage::block_file& file, const server& running) {
  const auto& shape = file.shape();
  spdlog::info("{} {}: {} bytes, {}{}", file.was_created() ? "created and serving" : "serving", file.path(),
               shape.size, shape.read_only ? "read-only, " : "",
               file.is_direct() ? fmt::format("direct I/O in units of {}", shape.alignment)
                                : "BUFFERED: through the page cache, not direct I/O");
  for (const auto& each : running.listeners()) spdlog::info("listening on {}", each.address);
  say_who_can_come_in(running);
}

}  // namespace aionbd::server
