#include "server/keygen.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "server/config.hpp"
#include "server/psk_file.hpp"
#include "server/tls_authority.hpp"

namespace aionbd::server {

namespace {

constexpr std::size_t psk_bytes = 32;
constexpr int days_default = 3650;

struct psk_wishes {
  std::string file;
  std::vector<std::string> users;
};

struct certificate_wishes {
  std::string folder;
  std::vector<std::string> hosts;
  std::vector<std::string> clients;
  int days = days_default;
};

void add(std::vector<std::string>& to, const std::string& what) {
  if (std::find(to.begin(), to.end(), what) == to.end()) to.push_back(what);
}

void demand_client(const char* knob, const std::string& name) {
  if (is_client(name)) return;
  throw usage_error(
      fmt::format("{}: '{}' is not 1 to 64 letters, digits and .-_@ without a leading dot", knob, name));
}

int make_psk(psk_wishes wishes) {
  if (wishes.users.empty()) wishes.users.emplace_back("nbd");
  std::string content;
  for (const auto& user : wishes.users) {
    // The file could name others, but they would not survive a shell and a URI.
    demand_client("--user", user);
    content += psk_line(user, random_bytes(psk_bytes)) + "\n";
  }
  (void)parse_pre_shared_keys("--user", content);  // it complains of a name given twice
  write_new_file(wishes.file, content);

  const std::filesystem::path file = std::filesystem::absolute(wishes.file);
  const std::string user = wishes.users.front(), host = own_name();
  std::string in_uri;
  for (const char each : user) in_uri += each == '@' ? "%40" : std::string(1, each);
  fmt::print(R"(Made {file}, with a key for each of {count} user(s). Whoever has a key can use the disk.

The server:
  aionbd --tls-psk {file} --listen 0.0.0.0 disk.img

On a client's machine, with a copy of the file (its own line is enough), that only the user can read:
  nbdinfo 'nbds://{in_uri}@{host}/?tls-psk-file={file}'
  qemu-img info --object tls-creds-psk,id=tls0,endpoint=client,username={user},dir={folder} \
    --image-opts driver=nbd,host={host},port={port},tls-creds=tls0
QEMU wants a folder, and the file in it to be called keys.psk. nbd-client knows certificates only.
)",
             fmt::arg("file", file.string()), fmt::arg("count", wishes.users.size()), fmt::arg("user", user),
             fmt::arg("in_uri", in_uri), fmt::arg("host", host),
             fmt::arg("folder", file.parent_path().string()), fmt::arg("port", default_port));
  return EXIT_SUCCESS;
}

void say_how_to_use(const tls_authority& authority, const std::string& host, const std::string& client) {
  fmt::print(R"(
The server:
  aionbd --tls-certificates {server} --listen 0.0.0.0 disk.img

Copy {from} to the client's machine. There, where that copy is ./{client}:
  nbdinfo 'nbds://{host}/?tls-certificates={client}'
  qemu-img info --object tls-creds-x509,id=tls0,endpoint=client,dir={client} \
    --image-opts driver=nbd,host={host},port={port},tls-creds=tls0
  sudo nbd-client {host} /dev/nbd0 -tlshostname {host} -cacertfile {client}/ca-cert.pem \
    -certfile {client}/client-cert.pem -keyfile {client}/client-key.pem

Another client later: aionbd keygen certificates {folder} --client NAME
)",
             fmt::arg("server", authority.server_folder()), fmt::arg("from", authority.client_folder(client)),
             fmt::arg("client", client), fmt::arg("host", host), fmt::arg("port", default_port),
             fmt::arg("folder", authority.folder()));
}

int make_certificates(certificate_wishes wishes) {
  for (const auto& each : wishes.hosts) {
    if (!is_host(each)) throw usage_error(fmt::format("--host: '{}' is no name or address", each));
  }
  for (const auto& each : wishes.clients) demand_client("--client", each);
  const tls_authority authority(std::filesystem::absolute(wishes.folder).string(), wishes.days);
  const bool has_server = std::filesystem::exists(authority.server_folder() + "/server-cert.pem");
  const std::string host = wishes.hosts.empty() ? own_name() : wishes.hosts.front();
  if (authority.is_new()) {
    fmt::print(
        "Made {}/ca-key.pem. Keep it: whoever has it can make certificates that the server believes.\n",
        authority.folder());
  }
  if (!has_server || !wishes.hosts.empty()) {
    // The names by which the server's own machine knows it do no harm, and let it be tried there.
    add(wishes.hosts, host);
    for (const char* const local : {"localhost", "127.0.0.1", "::1"}) add(wishes.hosts, local);
    authority.make_server(wishes.hosts);
    fmt::print("Made {}, for a server called {}.\n", authority.server_folder(),
               fmt::join(wishes.hosts, ", "));
    if (wishes.clients.empty()) wishes.clients.emplace_back("client");
  }
  if (wishes.clients.empty())
    throw usage_error(
        fmt::format("{} has a server's certificate; --client NAME adds a client", wishes.folder));
  for (const auto& each : wishes.clients) {
    authority.make_client(each);
    fmt::print("Made {}.\n", authority.client_folder(each));
  }
  say_how_to_use(authority, host, wishes.clients.front());
  return EXIT_SUCCESS;
}

}  // namespace

int run_keygen(int argc, const char* const* argv) {
  psk_wishes psk;
  certificate_wishes certificates;
  CLI::App app{"Makes keys for TLS and says how to use them. Overwrites nothing.", "aionbd keygen"};
  app.require_subcommand(1);
  app.get_formatter()->column_width(24);
  CLI::App* const for_psk = app.add_subcommand("psk", "A file of pre-shared keys: the least to set up");
  for_psk->add_option("FILE", psk.file, "The file to make, best called keys.psk")
      ->required()
      ->option_text(" ");
  for_psk->add_option("--user", psk.users, "A user who gets a key; repeatable (nbd)")
      ->type_name("NAME")
      ->allow_extra_args(false);
  CLI::App* const for_certificates =
      app.add_subcommand("certificates", "An authority, and certificates of the server and of clients");
  for_certificates->add_option("DIR", certificates.folder, "The folder to make, or to add a client to")
      ->required()
      ->option_text(" ");
  for_certificates
      ->add_option("--host", certificates.hosts, "How clients call the server: name or address; repeatable")
      ->type_name("NAME")
      ->allow_extra_args(false);
  for_certificates->add_option("--client", certificates.clients, "A client; repeatable (client)")
      ->type_name("NAME")
      ->allow_extra_args(false);
  for_certificates
      ->add_option("--days", certificates.days, fmt::format("How long they last ({})", days_default))
      ->type_name("N")
      ->check(CLI::Range(1, 36500));
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    fmt::print("{}", chosen.empty() ? app.help() : chosen.front()->help());
    return EXIT_SUCCESS;
  } catch (const CLI::ParseError& error) {
    throw usage_error(fmt::format("keygen: {}", error.what()));
  }
  return for_psk->parsed() ? make_psk(std::move(psk)) : make_certificates(std::move(certificates));
}

}  // namespace aionbd::server
