// One stream to a client: TCP or Unix today. Reads and handshake writes are Asio's; replies are sent
// directly, without waiting, and the reactor is asked only when the socket is full. One thread: that of the
// loop whose executor the socket was made with.
#pragma once

#include <sys/uio.h>

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <system_error>

namespace aionbd::server {

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

  // Reads what is there, at least one byte, into the buffers in order. They must live until then.
  boost::asio::awaitable<read_result> read_some(read_buffers into);

  // Writes all of it. For the handshake, where waiting is fine.
  boost::asio::awaitable<std::error_code> write(std::span<const std::byte> bytes);

  // Sends without waiting: how many bytes went out, which may be 0.
  [[nodiscard]] std::size_t send_now(std::span<const iovec> pieces, std::error_code& failure);

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

  const std::string& peer() const {
    return peer_;
  }  // for logs: "127.0.0.1:4711", "unix client, process 4711"

 private:
  socket socket_;
  std::string peer_;
  bool is_unix_ = false;
};

}  // namespace aionbd::server
