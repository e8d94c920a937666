// The transmission phase of one connection: requests are read in batches, become operations on the device,
// and their completions become replies. How much may be in flight is bounded in requests and in bytes: at the
// bound nothing more is read, so a client that does not take its replies is not read from either.
// Lives on one loop; owned by the connection's coroutine.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>

#include "protocol/terms.hpp"
#include "server/completion_batch.hpp"
#include "server/failure_log.hpp"
#include "server/fence.hpp"
#include "server/loop.hpp"
#include "server/receive_buffer.hpp"
#include "server/reply_writer.hpp"
#include "server/request_slot.hpp"
#include "server/transport.hpp"
#include "storage/block_device.hpp"

namespace aionbd::server {

struct session_limits {
  std::size_t requests_max = 128;
  // Of buffers in flight. A single request may pass it when it is alone, so that none is impossible.
  std::uint64_t in_flight_bytes_max = std::uint64_t{64} << 20;
  // How long a client that has said good-bye may take to fetch its last replies.
  std::chrono::seconds linger{10};
  // How long the last requests of clients that have gone may keep a new session waiting.
  std::chrono::seconds patience_with_the_gone{1};
};

class session final : private completion_batch_listener, private fence_listener {
 public:
  // All referents, and the export that was agreed on, must outlive the session. `place` is the
  // connection's at the device's fence.
  session(transport& stream, loop& home, storage::block_device& device, fence::member& place,
          const protocol::terms& agreed, const session_limits& limits);

  // Serves until the client leaves or breaks the protocol, and until nothing is in flight any more.
  // `read_ahead` came with the handshake's last bytes. The result says why it ended: empty for a DISC.
  // An exception, for want of memory, comes out only when nothing is in flight either.
  boost::asio::awaitable<std::error_code> run(std::span<const std::byte> read_ahead);

  // Finish what is in flight, refuse what comes, then end the stream. From the loop's thread.
  void stop();

 private:
  enum class pause {
    need_bytes,  // everything received was used
    need_room,   // a request waits for others to finish
    over,        // nothing more is to be read; ended_by_ says why
  };

  boost::asio::awaitable<void> wait_for_those_ahead();
  boost::asio::awaitable<void> serve(std::span<const std::byte> read_ahead);
  pause handle_received();
  void answer_finished();
  pause handle_header();
  pause end(std::error_code why);
  void begin(const protocol::request& asked, protocol::error refusal);
  bool take_payload();
  void finish_payload();
  void submit(request_slot& slot);
  static void on_done(storage::operation& work) noexcept;
  void answer(request_slot& slot) noexcept;
  void refuse(request_slot& slot, protocol::error why);
  void after_completions() override;
  void way_is_free() noexcept override {
    is_behind_others_ = false;
    wake();
  }
  void was_barred() noexcept override;
  void leave_if_all_is_begun() noexcept;

  bool has_room_for(const protocol::request& asked) const;
  bool attach_buffer(request_slot& slot);
  void release(request_slot& slot);
  transport::read_buffers read_target();
  void accept_bytes(std::size_t count);

  void wake();
  boost::asio::awaitable<void> wait_for_progress(std::chrono::steady_clock::time_point deadline);
  boost::asio::awaitable<void> drain();
  void end_if_stopped();

  transport& stream_;
  loop& home_;
  storage::block_device& device_;
  const protocol::terms agreed_;
  const session_limits limits_;

  fence::member& place_;
  bool begins_no_more_ = false;    // no more requests
  std::size_t stepping_ = 0;       // trims and zeroings in flight, which begin step after step
  bool is_behind_others_ = false;  // place_ has somebody to wait for, or word that it has not is on its way

  receive_buffer received_;
  request_slot* incoming_ = nullptr;  // the request whose payload is being read
  std::uint64_t payload_length_ = 0;  // bytes, of incoming_
  std::uint64_t payload_left_ = 0;
  protocol::error refusal_ = protocol::error::none;  // of incoming_: read the payload, then send this

  slot_pool slots_;
  std::uint64_t in_flight_bytes_ = 0;
  storage::sync_witness witness_;
  reply_writer writer_;
  bool will_be_called_ = false;  // after_completions() is on its way

  boost::asio::steady_timer
      progress_;  // never runs out by itself while requests are served: cancelled to wake
  bool waiting_ = false;
  bool progressed_ = false;  // since the received bytes were last looked at
  bool stopping_ = false;
  bool said_all_ = false;  // the client was told that nothing more comes; what it sends is not looked at
  std::error_code ended_by_;
  failure_log failures_;
};

}  // namespace aionbd::server
