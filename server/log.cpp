#include "server/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>

#include <cstdlib>

namespace aionbd::server {

void set_up_log(const std::string& level) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("aionbd"));
  // The journal stamps its lines itself.
  const bool to_journal = std::getenv("JOURNAL_STREAM") != nullptr;
  spdlog::set_pattern(to_journal ? "%l: %v" : "%Y-%m-%d %H:%M:%S.%e %l: %v");
  spdlog::set_level(spdlog::level::from_str(level));
}

}  // namespace aionbd::server
