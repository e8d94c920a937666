#include "tests/server/log_lines.hpp"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <mutex>

namespace aionbd::tests {

class log_lines::sink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  std::vector<std::string> lines() {
    const std::lock_guard guard(mutex_);
    return lines_;
  }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const auto level = spdlog::level::to_string_view(message.level);
    lines_.push_back(std::string(level.data(), level.size()) + ": " +
                     std::string(message.payload.data(), message.payload.size()));
  }
  void flush_() override {}

  std::vector<std::string> lines_;
};

log_lines::log_lines() : sink_(std::make_shared<sink>()), before_(spdlog::default_logger()) {
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", sink_));
}

log_lines::~log_lines() {
  spdlog::set_default_logger(before_);
}

std::vector<std::string> log_lines::all() const {
  return sink_->lines();
}

std::size_t log_lines::count_with(std::string_view part) const {
  const auto lines = all();
  return static_cast<std::size_t>(std::count_if(
      lines.begin(), lines.end(), [part](const std::string& line) { return line.find(part) != line.npos; }));
}

}  // namespace aionbd::tests
