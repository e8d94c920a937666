// Composes the program: command line, file, server; then runs it. Every way to fail at start ends here, with
// one line that names the thing at fault.
#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "server/announcement.hpp"
#include "server/config.hpp"
#include "server/deadly_signals.hpp"
#include "server/exports.hpp"
#include "server/identity.hpp"
#include "server/keygen.hpp"
#include "server/listeners.hpp"
#include "server/log.hpp"
#include "server/sandbox.hpp"
#include "server/server.hpp"
#include "storage/block_file.hpp"

namespace {

namespace server = aionbd::server;
namespace storage = aionbd::storage;

constexpr int exit_usage = 2;

int fail(const std::string& sentence, int status = EXIT_FAILURE) {
  fmt::print(stderr, "aionbd: {}\n", sentence);
  return status;
}

std::string advice_on(storage::open_error::reason why) {
  switch (why) {
    case storage::open_error::reason::missing:
      return "; --create SIZE makes it";
    case storage::open_error::reason::no_direct_io:
      return "; --io buffered serves it through the page cache, --io direct needs another file system";
    default:
      return "";
  }
}

storage::block_file open_file(const server::config& settings) {
  return storage::block_file::open({.path = settings.file,
                                    .read_only = settings.read_only,
                                    .direct = settings.direct,
                                    .create_size = settings.create_size,
                                    .preallocate = settings.preallocate});
}

int run(const server::config& settings) {
  server::outlive_failures();
  server::set_up_log(settings.log_level);
  const auto user = settings.user ? server::find_user_to_become(*settings.user) : std::nullopt;
  server::exports served;
  const storage::block_file& file =
      served.add(settings.export_name, settings.description, open_file(settings));
  storage::undo_creation undo(file.path());
  if (!file.was_created()) undo.keep();
  server::server running(settings, served);
  server::announce(file, running);
  server::give_up_rights(settings.sandbox, user, running.files());
  undo.keep();
  running.run();
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char* argv[]) {
  try {
    if (argc > 1 && argv[1] == std::string_view("keygen")) return server::run_keygen(argc - 1, argv + 1);
    const auto [settings, instead] = server::parse_command_line(argc, argv);
    if (!instead) return run(settings);
    fmt::print("{}", instead->text);
    return EXIT_SUCCESS;
  } catch (const server::usage_error& error) {
    return fail(fmt::format("{}\nTry aionbd --help.", error.what()), exit_usage);
  } catch (const storage::open_error& error) {
    return fail(error.what() + advice_on(error.why()));
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
