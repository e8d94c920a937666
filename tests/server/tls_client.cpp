#include "tests/server/tls_client.hpp"

#include <algorithm>
#include <cstring>

#include "server/psk_file.hpp"
#include "server/tls_authority.hpp"
#include "tests/support/catch.hpp"

namespace aionbd::tests {

namespace {

unsigned show_psk(SSL* session, const char*, char* user, unsigned user_max, unsigned char* key,
                  unsigned key_max) {
  const auto& settings = *static_cast<const tls_client_settings*>(SSL_get_app_data(session));
  REQUIRE((settings.psk_user.size() < user_max && settings.psk_key.size() <= key_max));
  std::strcpy(user, settings.psk_user.c_str());
  std::memcpy(key, settings.psk_key.data(), settings.psk_key.size());
  return static_cast<unsigned>(settings.psk_key.size());
}

}  // namespace

test_keys::test_keys() : carols_key_(server::random_bytes(32)) {
  const server::tls_authority authority(root(), 10);
  authority.make_server({"localhost", "127.0.0.1"});
  authority.make_client("alice");
  authority.make_client("bob");
  server::write_new_file(psk(), server::psk_line("carol", carols_key_) + "\n" +
                                    server::psk_line("dave", server::random_bytes(16)) + "\n");
}

server::tls_settings test_keys::settings() const {
  server::tls_settings result;
  result.policy = protocol::tls_policy::required;
  result.certificates = server();
  result.psk_file = psk();
  return result;
}

tls_client::tls_client(const tls_client_settings& settings)
    : context_(SSL_CTX_new(TLS_client_method()), SSL_CTX_free),
      session_(nullptr, SSL_free),
      settings_(settings) {
  SSL_CTX* const context = context_.get();
  SSL_CTX_set_min_proto_version(context, settings.version_min);
  SSL_CTX_set_max_proto_version(context, settings.version_max);
  if (!settings.suites_1_2.empty())
    REQUIRE(SSL_CTX_set_cipher_list(context, settings.suites_1_2.c_str()) == 1);
  if (!settings.suites_1_3.empty())
    REQUIRE(SSL_CTX_set_ciphersuites(context, settings.suites_1_3.c_str()) == 1);
  if (!settings.folder.empty()) {
    REQUIRE(SSL_CTX_use_certificate_chain_file(context, (settings.folder + "/client-cert.pem").c_str()) == 1);
    REQUIRE(SSL_CTX_use_PrivateKey_file(context, (settings.folder + "/client-key.pem").c_str(),
                                        SSL_FILETYPE_PEM) == 1);
    REQUIRE(SSL_CTX_load_verify_locations(context, (settings.folder + "/ca-cert.pem").c_str(), nullptr) == 1);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  }
  if (!settings.psk_user.empty()) SSL_CTX_set_psk_client_callback(context, show_psk);
  session_.reset(SSL_new(context));
  SSL_set_app_data(session_.get(), &settings_);
  SSL_set_bio(session_.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  SSL_set_connect_state(session_.get());
  if (!settings.folder.empty()) REQUIRE(SSL_set1_host(session_.get(), "localhost") == 1);
}

void tls_client::exchange(server::tls_stream& with) {
  for (bool moved = true; moved;) {
    if (!is_agreed_) is_agreed_ = SSL_do_handshake(session_.get()) == 1;
    const byte_vector up = take_output();
    tests::give_input(with, up);
    of_server = with.shake_hands();
    const byte_vector down = tests::take_output(with);
    give_input(down);
    moved = !up.empty() || !down.empty();
  }
}

bool tls_client::shakes_hands(server::tls_stream& with) {
  exchange(with);
  return is_agreed_;
}

void tls_client::say(const byte_vector& data) {
  REQUIRE(SSL_write(session_.get(), data.data(), static_cast<int>(data.size())) ==
          static_cast<int>(data.size()));
}

byte_vector tls_client::take_output() {
  BIO* const bio = SSL_get_wbio(session_.get());
  byte_vector bytes(BIO_ctrl_pending(bio));
  if (!bytes.empty()) BIO_read(bio, bytes.data(), static_cast<int>(bytes.size()));
  return bytes;
}

void tls_client::give_input(const byte_vector& bytes) {
  if (!bytes.empty()) BIO_write(SSL_get_rbio(session_.get()), bytes.data(), static_cast<int>(bytes.size()));
}

byte_vector tls_client::hear() {
  byte_vector heard, buffer(1 << 16);
  for (int got = 1; got > 0;) {
    got = SSL_read(session_.get(), buffer.data(), static_cast<int>(buffer.size()));
    if (got > 0) heard.insert(heard.end(), buffer.begin(), buffer.begin() + got);
  }
  return heard;
}

byte_vector read_from(server::tls_stream& stream, std::size_t length_max, server::tls_stream::outcome* last) {
  byte_vector data(length_max);
  const iovec place{data.data(), data.size()};
  const auto result = stream.read({&place, 1});
  if (last != nullptr) *last = result;
  data.resize(result.bytes);
  return data;
}

byte_vector take_output(server::tls_stream& stream) {
  const byte_vector bytes = exact_copy(stream.output());
  stream.output_sent(bytes.size());
  return bytes;
}

void give_input(server::tls_stream& stream, const byte_vector& bytes) {
  const auto space = stream.input_space();
  REQUIRE(bytes.size() <= space.size());
  std::copy(bytes.begin(), bytes.end(), space.begin());
  stream.input_filled(bytes.size());
}

}  // namespace aionbd::tests
