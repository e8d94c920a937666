// TLS of one connection, without a socket: what was received goes in, what is to be sent comes out, and the
// data is on the other side. The transport that owns it moves the bytes. One thread.
//
//    socket -> input ->  read()  -> data          bounded: who does not take output() is not read from
//    socket <- output <- write() <- data
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <system_error>

#include "server/receive_buffer.hpp"
#include "server/tls_context.hpp"

namespace aionbd::server {

class tls_stream {
 public:
  // What is to be done before the same call can get on.
  enum class need {
    nothing,  // it did what it could; see its result
    input,    // more bytes of the peer
    room,     // output() must be taken
  };

  struct outcome {
    std::size_t bytes = 0;
    need next = need::nothing;
    std::error_code failure{};  // set also at the end of the stream
  };

  // Throws std::bad_alloc.
  explicit tls_stream(std::shared_ptr<const tls_context> keys);
  tls_stream(const tls_stream&) = delete;
  tls_stream& operator=(const tls_stream&) = delete;
  ~tls_stream();

  // Call until nothing is needed; then the peer is known, or `failure` is set and describe() says why.
  outcome shake_hands();
  // The connection has failed below TLS, which is why, unless it had failed before.
  void fail(std::error_code why) {
    if (!failure_) failure_ = why;
  }
  // Of the peer that is known: "TLSv1.3, TLS_AES_128_GCM_SHA256, CN=alice"; of another, what went wrong.
  std::string describe() const;

  // Data into these places, in order: as much as there is, at least one byte unless something is needed.
  outcome read(std::span<const iovec> into);
  // Takes data from these pieces, the first `skip` bytes left out: nothing while output() is not empty, and
  // not more than there is room for.
  outcome write(std::span<const iovec> pieces, std::size_t skip);
  // Says that nothing more is written, as far as there is room for that.
  void say_goodbye();

  // The network's side. Spans are valid until the next call.
  std::span<std::byte> input_space() { return input_.space(); }
  void input_filled(std::size_t count) { input_.filled(count); }
  std::span<const std::byte> output() const { return output_.bytes(); }
  void output_sent(std::size_t count) { output_.consume(count); }

 private:
  friend struct tls_bio;

  outcome outcome_of(int result);
  void pay_with(std::size_t bytes);
  bool encrypt(const std::byte* data, std::size_t length, outcome& so_far);

  std::shared_ptr<const tls_context> keys_;  // outlives the session, whose callbacks use it
  tls_peer peer_;
  receive_buffer input_;
  receive_buffer output_;
  tls_session session_;
  std::size_t paid_ = 0;         // bytes of data, for messages that are not paid for in full
  std::error_code failure_;      // the first one; nothing is tried after it
  bool peer_has_ended_ = false;  // it said good-bye, and still takes what we write
};

}  // namespace aionbd::server
