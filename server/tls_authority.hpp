// A small certificate authority in a folder: its own certificate, one for the server and one for each client.
//
//    FOLDER/ca-cert.pem  ca-key.pem                   the authority; its key stays here
//    FOLDER/server/      ca-cert.pem server-cert.pem server-key.pem    for --tls-certificates
//    FOLDER/clients/NAME/  ca-cert.pem client-cert.pem client-key.pem  to be copied to the client
//
// The names are those that QEMU, libnbd and nbdkit look for. All functions throw tls_error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/tls_pem.hpp"

namespace aionbd::server {

class tls_authority {
 public:
  // The one in the folder, or else a new one there.
  tls_authority(std::string folder, int days);

  bool is_new() const { return is_new_; }
  const std::string& folder() const { return folder_; }
  std::string server_folder() const { return folder_ + "/server"; }
  std::string client_folder(const std::string& name) const { return folder_ + "/clients/" + name; }

  // For a server that goes by these names and addresses; there is at least one. See is_host().
  void make_server(const std::vector<std::string>& hosts) const;
  // See is_client().
  void make_client(const std::string& name) const;

 private:
  void issue(const std::string& into, const std::string& role, const std::string& common_name,
             const std::string& other_names) const;

  std::string folder_;
  int days_;
  bool is_new_ = false;
  certificate certificate_;
  private_key key_;
};

// A DNS name or an IP address, without anything that means more in a certificate's list of names.
[[nodiscard]] bool is_host(std::string_view text) noexcept;
// How this machine calls itself, or "localhost" where that is no such name.
[[nodiscard]] std::string own_name();
// Fit for a folder's name as it is, and for a common name: 1 to 64 characters.
[[nodiscard]] bool is_client(std::string_view text) noexcept;

// Creates the file, for the owner's eyes only unless it is `open`; it must not exist.
void write_new_file(const std::string& path, std::string_view content, bool open = false);

// So many bytes that nobody can guess.
[[nodiscard]] std::string random_bytes(std::size_t count);

}  // namespace aionbd::server
