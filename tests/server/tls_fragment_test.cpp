// A client that sends part of a message of TLS's own, and never the rest. No TLS library can be made to, so
// the record is sealed here by hand (RFC 8446, sections 5.2, 5.3, 7.1 and 7.3).
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>

#include <array>
#include <string>

#include "tests/server/tls_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using server::tls_stream;

namespace {

// Of the client's data, in hexadecimal; of the last session that was agreed on in this process.
std::string secret_of_client;

void keep_secret(const SSL*, const char* line) {
  const std::string text(line), label = "CLIENT_TRAFFIC_SECRET_0 ";
  if (text.starts_with(label)) secret_of_client = text.substr(text.rfind(' ') + 1);
}

byte_vector from_hex(const std::string& digits) {
  byte_vector bytes;
  for (std::size_t at = 0; at < digits.size(); at += 2) {
    bytes.push_back(std::byte(std::stoul(digits.substr(at, 2), nullptr, 16)));
  }
  return bytes;
}

const unsigned char* raw(const byte_vector& bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

// HKDF-Expand-Label without a context, of no more than one block.
byte_vector expanded(const byte_vector& secret, const std::string& label, std::size_t length) {
  const std::string full = "tls13 " + label;
  std::string about{'\0', static_cast<char>(length), static_cast<char>(full.size())};
  about += full + std::string("\0\1", 2);
  byte_vector block(EVP_MAX_MD_SIZE);
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(about.data()), about.size(),
       reinterpret_cast<unsigned char*>(block.data()), nullptr);
  block.resize(length);
  return block;
}

// The client's first record behind its handshake, by TLS_AES_128_GCM_SHA256.
byte_vector first_record(std::uint8_t kind, byte_vector content) {
  constexpr std::size_t tag_length = 16;
  const byte_vector secret = from_hex(secret_of_client);
  const byte_vector key = expanded(secret, "key", 16), nonce = expanded(secret, "iv", 12);
  content.push_back(std::byte{kind});
  const std::size_t length = content.size() + tag_length;
  const byte_vector header{std::byte{23}, std::byte{3}, std::byte{3}, std::byte(length >> 8U),
                           std::byte(length & 0xFFU)};
  byte_vector sealed(length);
  auto* const out = reinterpret_cast<unsigned char*>(sealed.data());
  const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> cipher(EVP_CIPHER_CTX_new(),
                                                                               EVP_CIPHER_CTX_free);
  int done = 0;
  REQUIRE(EVP_EncryptInit_ex(cipher.get(), EVP_aes_128_gcm(), nullptr, raw(key), raw(nonce)) == 1);
  REQUIRE(EVP_EncryptUpdate(cipher.get(), nullptr, &done, raw(header), static_cast<int>(header.size())) == 1);
  REQUIRE(EVP_EncryptUpdate(cipher.get(), out, &done, raw(content), static_cast<int>(content.size())) == 1);
  REQUIRE(EVP_EncryptFinal_ex(cipher.get(), out + done, &done) == 1);
  REQUIRE(EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_AEAD_GET_TAG, tag_length, out + content.size()) == 1);
  return joined(header, sealed);
}

struct agreed_ends {
  agreed_ends() {
    SSL_CTX_set_keylog_callback(SSL_get_SSL_CTX(peer.session()), keep_secret);
    REQUIRE(peer.shakes_hands(stream));
    REQUIRE_FALSE(peer.of_server.failure);
  }
  test_keys keys;
  tls_stream stream{std::make_shared<const server::tls_context>(keys.settings())};
  tls_client peer{{.folder = keys.client("alice"), .suites_1_3 = "TLS_AES_128_GCM_SHA256"}};
};

}  // namespace

TEST_CASE("a_record_that_was_sealed_by_hand_is_one_of_the_clients") {
  agreed_ends ends;
  const byte_vector data = pattern(100);
  give_input(ends.stream, first_record(SSL3_RT_APPLICATION_DATA, data));
  CHECK((read_from(ends.stream, 1000) == data));
}

// OpenSSL writes nothing before it has the rest. Who waited to be able to write would wait as long as the
// client likes, at full speed.
TEST_CASE("part_of_a_message_of_tls_itself_fails_what_is_written_and_does_not_hold_it_up") {
  agreed_ends ends;
  // A KeyUpdate, but for its last byte.
  give_input(ends.stream, first_record(SSL3_RT_HANDSHAKE, {std::byte{SSL3_MT_KEY_UPDATE}, std::byte{0},
                                                           std::byte{0}, std::byte{1}}));
  tls_stream::outcome last;
  CHECK(read_from(ends.stream, 100, &last).empty());
  CHECK(last.next == tls_stream::need::input);

  const byte_vector reply = pattern(100);
  const iovec piece{const_cast<std::byte*>(reply.data()), reply.size()};
  const auto written = ends.stream.write({&piece, 1}, 0);
  CHECK(written.bytes == 0);
  CHECK(written.failure == std::errc::protocol_error);
  CHECK(ends.stream.write({&piece, 1}, 0).failure);
  CHECK(ends.stream.read({}).failure);
}
