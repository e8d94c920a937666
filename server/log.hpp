// The log: to standard error, one line an event, in words. Set up once by main.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace aionbd::server {

// `level`: debug, info, warn, error or off.
void set_up_log(const std::string& level);

}  // namespace aionbd::server
