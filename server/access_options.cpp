#include "server/access_options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>

namespace aionbd::server {

namespace {

constexpr mode_t permissions_max = 0777;
constexpr int octal = 8;

mode_t parse_mode(const std::string& text) {
  mode_t mode = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, failure] = std::from_chars(text.data(), end, mode, octal);
  if (failure != std::errc() || stopped != end || mode > permissions_max) {
    throw usage_error(fmt::format("--unix-mode: '{}' is not from 0 to 0777, in octal", text));
  }
  return mode;
}

// An empty text is a text: `--user "$NOBODY"` must not come to mean root.
void add_text(CLI::App& app, const std::string& knob, std::optional<std::string>& to, const std::string& type,
              const std::string& help) {
  app.add_option_function<std::string>(
         knob, [&to](const std::string& text) { to = text; }, help)
      ->type_name(type);
}

}  // namespace

void declare_access(CLI::App& app, config& settings, access_options& raw) {
  app.add_option("--allow", raw.allow, "Let in this network by TCP: 192.0.2.0/24; repeatable (all)")
      ->type_name("NETWORK")
      ->allow_extra_args(false);
  add_text(app, "--unix-mode", raw.unix_mode, "MODE",
           fmt::format("Permissions of Unix sockets, in octal (0{:o})", settings.unix_mode));
  add_text(app, "--unix-owner", settings.unix_owner, "OWNER", "Give Unix sockets to USER[:GROUP]");
  add_text(app, "--user", settings.user, "USER", "Started by root: become USER[:GROUP] once all is open");
  app.add_flag_callback(
      "--no-sandbox", [&settings] { settings.sandbox = false; }, "Keep all rights; for debugging");
}

void apply_access(config& settings, const access_options& raw) {
  for (const auto& text : raw.allow) {
    try {
      settings.allow.push_back(parse_network(text));
    } catch (const std::invalid_argument& error) {
      throw usage_error(fmt::format("--allow: {}", error.what()));
    }
  }
  if (raw.unix_mode) settings.unix_mode = parse_mode(*raw.unix_mode);
  if (settings.unix_paths.empty()) {
    if (raw.unix_mode) throw usage_error("--unix-mode: needs --unix");
    if (settings.unix_owner) throw usage_error("--unix-owner: needs --unix");
  }
}

}  // namespace aionbd::server
