// The other end of a tls_stream, in the same process and without sockets: OpenSSL's client, byte for byte
// under the test's control.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "server/tls_stream.hpp"
#include "tests/protocol/bytes.hpp"
#include "tests/server/temporary_folder.hpp"

namespace aionbd::tests {

// A folder with an authority, a server's certificate and those of two clients, alice and bob.
class test_keys {
 public:
  test_keys();

  std::string server() const { return root() + "/server"; }
  std::string client(const std::string& name) const { return root() + "/clients/" + name; }
  std::string root() const { return folder_.path_of("keys"); }
  // A file of pre-shared keys with the users carol and dave.
  std::string psk() const { return folder_.path_of("keys.psk"); }
  std::string carols_key() const { return carols_key_; }

  // Those of all kinds.
  server::tls_settings settings() const;

 private:
  temporary_folder folder_;
  std::string carols_key_;
};

struct tls_client_settings {
  std::string folder{};    // of a client's certificate; empty: it has none
  std::string psk_user{};  // empty: it has no pre-shared key
  std::string psk_key{};
  int version_max = TLS1_3_VERSION;
  int version_min = TLS1_2_VERSION;
  std::string suites_1_2{};  // empty: OpenSSL's own choice
  std::string suites_1_3{};
};

class tls_client {
 public:
  explicit tls_client(const tls_client_settings& settings = {});

  // Moves bytes both ways until neither side has more to say, and shakes hands with what arrives.
  void exchange(server::tls_stream& with);
  // Likewise, until both are agreed or one has failed. True when they are agreed, as the client sees it.
  bool shakes_hands(server::tls_stream& with);
  server::tls_stream::outcome of_server;  // what its handshake came to

  SSL* session() { return session_.get(); }
  void say(const byte_vector& data);  // encrypts it; exchange() or take_output() moves it
  byte_vector take_output();          // what the client wants to send
  void give_input(const byte_vector& bytes);
  byte_vector hear();  // the data that has arrived

 private:
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
  std::unique_ptr<SSL, decltype(&SSL_free)> session_;
  tls_client_settings settings_;
  bool is_agreed_ = false;
};

// What the server reads now, at most so many bytes.
byte_vector read_from(server::tls_stream& stream, std::size_t length_max,
                      server::tls_stream::outcome* last = nullptr);
// What the server wants to send; it is taken.
byte_vector take_output(server::tls_stream& stream);
void give_input(server::tls_stream& stream, const byte_vector& bytes);

}  // namespace aionbd::tests
