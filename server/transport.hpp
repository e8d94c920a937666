// One stream to a client: TCP or Unix, and TLS over either once it was upgraded. Reads and handshake writes
// are Asio's; replies are sent directly, without waiting, and the reactor is asked only when the socket is
// full. With TLS, what was taken may still be here, encrypted: see has_unsent(). One thread: that of the loop
// whose executor the socket was made with.
#pragma once

#include <sys/uio.h>

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <system_error>

namespace aionbd::server {

class tls_context;
class tls_stream;

class transport {
 public:
  using socket = boost::asio::generic::stream_protocol::socket;
  using read_buffers = std::array<boost::asio::mutable_buffer, 2>;  // the second may be empty

  struct read_result {
    std::size_t bytes = 0;
    std::error_code failure;  // set also at the end of the stream
  };

  // A TCP peer that has vanished, without so much as a reset, is noticed after about `dead_peer_timeout`.
  explicit transport(socket connected, std::chrono::seconds dead_peer_timeout = std::chrono::seconds(90));
  ~transport();

  // Shakes hands by TLS, the peer beginning. Nothing may have been read beyond the bytes that led here.
  // Whether the peer is let in, and what the log should say of it: its ciphers and its name, or what went
  // wrong.
  struct upgrade_result {
    bool is_secure = false;
    std::string about;
  };
  boost::asio::awaitable<upgrade_result> upgrade(std::shared_ptr<const tls_context> keys);

  // Reads what is there, at least one byte, into the buffers in order. They must live until then.
  boost::asio::awaitable<read_result> read_some(read_buffers into);

  // Writes all of it. For the handshake, where waiting is fine.
  boost::asio::awaitable<std::error_code> write(std::span<const std::byte> bytes);

  // Sends without waiting: how many bytes were taken, which may be 0. Their memory is not read any more.
  [[nodiscard]] std::size_t send_now(std::span<const iovec> pieces, std::error_code& failure);

  // True when bytes that were taken are still to be sent: call send_now(), with or without more, when the
  // socket may take them.
  bool has_unsent() const;

  // Calls back, from the loop, when the socket may take more, or on an error that sending will show.
  template <typename Handler>
  void when_writable(Handler handler) {
    socket_.async_wait(socket::wait_write, std::move(handler));
  }

  // True when the peer's system has everything that was sent.
  bool has_delivered_all();
  // Tells the peer that nothing more comes. What it sends is still to be read.
  void finish_sending();
  // Ends the stream both ways; whoever waits on it is woken. May be called again.
  void shut_down();

  // For asking the system about it; open as long as this object.
  int descriptor() { return socket_.native_handle(); }

  const std::string& peer() const {
    return peer_;
  }  // for logs: "127.0.0.1:4711", "unix client, process 4711"

 private:
  boost::asio::awaitable<read_result> read_decrypted(read_buffers into);
  boost::asio::awaitable<std::error_code> write_encrypted(std::span<const std::byte> bytes);
  std::size_t send_encrypted(std::span<const iovec> pieces, std::error_code& failure);
  std::size_t send_raw(std::span<const iovec> pieces, std::error_code& failure);
  bool flush(std::error_code& failure);

  socket socket_;
  std::string peer_;
  bool is_unix_ = false;
  bool is_finishing_ = false;  // what has_unsent() is the last that is sent
  std::unique_ptr<tls_stream> tls_;
};

}  // namespace aionbd::server
