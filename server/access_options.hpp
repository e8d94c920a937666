// The options of the command line about who may connect and what the server itself may do. A part of config.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/config.hpp"

namespace CLI {
class App;
}

namespace aionbd::server {

// What the command line holds as text until it is checked.
struct access_options {
  std::vector<std::string> allow;
  std::optional<std::string> unix_mode;
};

void declare_access(CLI::App& app, config& settings, access_options& raw);

// Throws usage_error.
void apply_access(config& settings, const access_options& raw);

}  // namespace aionbd::server
