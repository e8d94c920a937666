#include "server/tls_stream.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <boost/asio/error.hpp>
#include <cassert>
#include <cstring>
#include <new>

#include "server/tls_names.hpp"
#include "server/tls_pem.hpp"

namespace aionbd::server {

namespace {

constexpr std::size_t record_data_max = SSL3_RT_MAX_PLAIN_LENGTH;
// What encryption adds to a record; and to spare, for a message of TLS's own.
constexpr std::size_t record_overhead_max = 64;
constexpr std::size_t spare_room = 1024;

// A client that is known and sends more messages of TLS's own than this, and little data, only wants us busy.
// So much data pays for one: far less than any library sends before it changes its key.
constexpr unsigned unpaid_messages_max = 64;
constexpr std::size_t price_of_message = std::size_t{64} << 10;

// Whether the key that it named is the one it came in by. In TLS 1.3 OpenSSL drops a key that does not fit
// the cipher, and goes on with the certificate.
bool has_proved_psk(SSL* session) {
  if (SSL_version(session) >= TLS1_3_VERSION) return SSL_session_reused(session) == 1;
  return SSL_CIPHER_get_auth_nid(SSL_get_current_cipher(session)) == NID_auth_psk;
}

}  // namespace

// How OpenSSL gets at our buffers.
struct tls_bio {
  static tls_stream& stream_of(BIO* bio) { return *static_cast<tls_stream*>(BIO_get_data(bio)); }

  static int read(BIO* bio, char* into, int length) {
    tls_stream& stream = stream_of(bio);
    BIO_clear_retry_flags(bio);
    const auto here = stream.input_.bytes();
    const std::size_t count = std::min(here.size(), static_cast<std::size_t>(length));
    if (stream.peer_.unpaid_messages > unpaid_messages_max) return 0;
    if (count == 0) {
      BIO_set_retry_read(bio);
      return -1;
    }
    std::memcpy(into, here.data(), count);
    stream.input_.consume(count);
    return static_cast<int>(count);
  }

  static int write(BIO* bio, const char* from, int length) {
    tls_stream& stream = stream_of(bio);
    BIO_clear_retry_flags(bio);
    const auto space = stream.output_.space();
    const std::size_t count = std::min(space.size(), static_cast<std::size_t>(length));
    if (count == 0) {
      BIO_set_retry_write(bio);
      return -1;
    }
    std::memcpy(space.data(), from, count);
    stream.output_.filled(count);
    return static_cast<int>(count);
  }

  static long control(BIO*, int what, long, void*) { return what == BIO_CTRL_FLUSH ? 1 : 0; }

  static BIO* make(tls_stream& stream) {
    static const std::unique_ptr<BIO_METHOD, freed_by<BIO_meth_free>> method = [] {
      std::unique_ptr<BIO_METHOD, freed_by<BIO_meth_free>> made(
          BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "aionbd"));
      if (!made) throw std::bad_alloc();
      BIO_meth_set_read(made.get(), read);
      BIO_meth_set_write(made.get(), write);
      BIO_meth_set_ctrl(made.get(), control);
      return made;
    }();
    BIO* const bio = BIO_new(method.get());
    if (bio == nullptr) throw std::bad_alloc();
    BIO_set_data(bio, &stream);
    BIO_set_init(bio, 1);
    return bio;
  }
};

tls_stream::tls_stream(std::shared_ptr<const tls_context> keys)
    : keys_(std::move(keys)), session_(keys_->new_session(peer_)) {
  BIO* const bio = tls_bio::make(*this);
  SSL_set_bio(session_.get(), bio, bio);
}

tls_stream::~tls_stream() = default;

tls_stream::outcome tls_stream::outcome_of(int result) {
  switch (SSL_get_error(session_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return {.next = need::input};
    case SSL_ERROR_WANT_WRITE:
      return {.next = need::room};
    case SSL_ERROR_ZERO_RETURN:
      peer_has_ended_ = true;
      return {.failure = make_error_code(boost::asio::error::eof)};
    default:
      failure_ = take_tls_failure();
      break;
  }
  return {.failure = failure_};
}

tls_stream::outcome tls_stream::shake_hands() {
  if (failure_) return {.failure = failure_};
  ERR_clear_error();
  const int result = SSL_do_handshake(session_.get());
  if (result != 1) return outcome_of(result);
  peer_.is_known = true;
  return {};
}

std::string tls_stream::describe() const {
  if (!peer_.is_known) {
    if (!peer_.refusal.empty()) return peer_.refusal;
    const long verdict = SSL_get_verify_result(session_.get());
    if (verdict != X509_V_OK) {
      return fmt::format("the client's certificate: {}", X509_verify_cert_error_string(verdict));
    }
    return failure_.message();
  }
  const std::string secrecy =
      fmt::format("{}, {}", SSL_get_version(session_.get()), SSL_get_cipher_name(session_.get()));
  if (has_proved_psk(session_.get())) return fmt::format("{}, pre-shared key of {}", secrecy, peer_.psk_user);
  const certificate shown(SSL_get1_peer_certificate(session_.get()));
  return shown ? fmt::format("{}, {}", secrecy, subject_of(*shown)) : secrecy;
}

tls_stream::outcome tls_stream::read(std::span<const iovec> into) {
  if (failure_) return {.failure = failure_};
  if (peer_has_ended_) return {.failure = make_error_code(boost::asio::error::eof)};
  std::size_t total = 0;
  ERR_clear_error();
  for (const iovec& place : into) {
    for (std::size_t filled = 0; filled < place.iov_len;) {
      std::size_t count = 0;
      const int result = SSL_read_ex(session_.get(), static_cast<std::byte*>(place.iov_base) + filled,
                                     place.iov_len - filled, &count);
      if (result != 1) {
        const outcome stopped = outcome_of(result);
        // A failure is told by the next call, when the data before it has been taken.
        return total != 0 ? outcome{.bytes = total} : stopped;
      }
      pay_with(count);
      filled += count;
      total += count;
    }
  }
  return {.bytes = total};
}

void tls_stream::pay_with(std::size_t bytes) {
  paid_ += bytes;
  const auto messages =
      static_cast<unsigned>(std::min<std::size_t>(peer_.unpaid_messages, paid_ / price_of_message));
  peer_.unpaid_messages -= messages;
  paid_ = peer_.unpaid_messages == 0 ? 0 : paid_ - messages * price_of_message;
}

// Whole records are made of the pieces: a long piece is encrypted from where it lies, and what is left of it
// joins the short ones in a record of their own, so that many small replies, or a header and the data behind
// it, share one.
tls_stream::outcome tls_stream::write(std::span<const iovec> pieces, std::size_t skip) {
  if (failure_) return {.failure = failure_};
  outcome so_far;
  if (!output_.empty()) return so_far;
  std::array<std::byte, record_data_max> record;
  std::size_t gathered = 0;
  std::size_t room = receive_buffer::capacity - spare_room;
  constexpr std::size_t record_room = record_data_max + record_overhead_max;
  ERR_clear_error();
  for (const iovec& piece : pieces) {
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    std::span<const std::byte> rest(static_cast<const std::byte*>(piece.iov_base) + skip,
                                    piece.iov_len - skip);
    skip = 0;
    while (!rest.empty()) {
      if (room < record_room) return so_far;
      std::size_t count = std::min(rest.size(), record_data_max - gathered);
      if (gathered == 0 && rest.size() >= record_data_max) {
        const std::size_t records = std::min(rest.size() / record_data_max, room / record_room);
        count = records * record_data_max;
        if (!encrypt(rest.data(), count, so_far)) return so_far;
        room -= records * record_room;
      } else {
        std::memcpy(record.data() + gathered, rest.data(), count);
        gathered += count;
        if (gathered == record_data_max) {
          if (!encrypt(record.data(), gathered, so_far)) return so_far;
          room -= record_room;
          gathered = 0;
        }
      }
      rest = rest.subspan(count);
    }
  }
  if (gathered != 0) encrypt(record.data(), gathered, so_far);
  return so_far;
}

// False when nothing more can be written now. There is room for all of it, so it is all or nothing.
bool tls_stream::encrypt(const std::byte* data, std::size_t length, outcome& so_far) {
  std::size_t written = 0;
  const int result = SSL_write_ex(session_.get(), data, length, &written);
  if (result == 1) {
    assert(written == length);
    so_far.bytes += length;
    return true;
  }
  // Only part of a message of TLS's own has come, and OpenSSL writes nothing before the rest. None that may
  // come is so long that an honest peer divides it; and who waited for the rest here might wait for ever.
  const outcome stopped = outcome_of(result);
  if (stopped.next == need::input) failure_ = std::make_error_code(std::errc::protocol_error);
  so_far.failure = failure_;
  return false;
}

void tls_stream::say_goodbye() {
  if (failure_ || !peer_.is_known) return;
  ERR_clear_error();
  (void)SSL_shutdown(session_.get());  // it says whether the peer has said it too, which we do not wait for
  ERR_clear_error();
}

}  // namespace aionbd::server
