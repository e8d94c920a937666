// Takes the log while it lives, so that tests can read it and the terminal stays clean.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace spdlog {
class logger;
}

namespace aionbd::tests {

class log_lines {
 public:
  log_lines();
  log_lines(const log_lines&) = delete;
  log_lines& operator=(const log_lines&) = delete;
  ~log_lines();

  // Any thread. "error: what happened"
  std::vector<std::string> all() const;
  std::size_t count_with(std::string_view part) const;

 private:
  class sink;
  std::shared_ptr<sink> sink_;
  std::shared_ptr<spdlog::logger> before_;
};

}  // namespace aionbd::tests
