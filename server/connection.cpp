#include "server/connection.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/error.hpp>
#include <exception>
#include <utility>

#include "server/log.hpp"

namespace aionbd::server {

namespace {

namespace asio = boost::asio;

// Handshakes are short; large buffers are for those who got through one.
constexpr std::size_t handshake_buffer = 4096;

protocol::handshake_offers everything_with(const tls_keys* tls) {
  return {.structured_replies = true,
          .metadata = true,
          .extended_headers = true,
          .tls = tls != nullptr ? tls->policy() : protocol::tls_policy::off};
}

// What a client in the middle of its handshake gets when the server stops.
constexpr std::chrono::seconds handshake_grace{1};

}  // namespace

connection::connection(transport::socket socket, loop& home, exports& served, const connection_limits& limits,
                       std::function<void()> ended, const tls_keys* tls)
    : home_(home),
      served_(served),
      limits_(limits),
      ended_(std::move(ended)),
      stream_(std::move(socket), limits.dead_peer_timeout),
      deadline_(home.context),
      tls_(tls),
      handshake_(served.infos(), limits.handshake, everything_with(tls)) {
  home_.connections.insert(this);
}

connection::~connection() {
  home_.connections.erase(this);
  ended_();
}

void connection::start() {
  // GCC 12 destroys a temporary lambda's captures too early here; a named one is safe.
  auto life = [self = shared_from_this()]() -> asio::awaitable<void> { co_await self->live(); };
  asio::co_spawn(home_.context, std::move(life), asio::detached);
}

void connection::stop() {
  stopping_ = true;
  if (session_) return session_->stop();
  handshake_.shut_down();
  start_deadline(std::min(limits_.handshake_timeout, handshake_grace));
}

asio::awaitable<void> connection::live() {
  try {
    start_deadline(limits_.handshake_timeout);
    if (co_await shake_hands()) {
      deadline_.cancel();
      co_await transmit();
    }
  } catch (const std::exception& failure) {
    // Nothing that one client causes may reach another: this is the end of this connection only.
    spdlog::error("{}: {}", stream_.peer(), failure.what());
  }
  deadline_.cancel();
  stream_.shut_down();
}

void connection::start_deadline(std::chrono::seconds after) {
  deadline_.expires_after(after);
  deadline_.async_wait([weak = weak_from_this(), after](boost::system::error_code cancelled) {
    const auto self = weak.lock();
    if (cancelled || !self || self->session_) return;
    say_rarely(self->home_.troubles, spdlog::level::warn, "{}: no handshake within {} s, closing",
               self->stream_.peer(), after.count());
    self->stream_.shut_down();
  });
}

// True when the client has entered the transmission phase.
asio::awaitable<bool> connection::shake_hands() {
  using step = protocol::handshake::step;
  std::array<std::byte, handshake_buffer> buffer;
  const transport::read_buffers target{asio::buffer(buffer)};
  std::span<const std::byte> received;
  for (;;) {
    const auto action = handshake_.resume(received);
    received = received.subspan(action.consumed);
    // Before the client is told that it may send requests.
    if (action.what == step::enter_transmission) {
      place_.emplace(served_.fence_of(*handshake_.agreed().chosen), stream_.descriptor(), home_.queue);
    }
    if (!handshake_.output().empty() && action.what != step::need_bytes) {
      if (co_await stream_.write(handshake_.output())) co_return false;
    }
    switch (action.what) {
      case step::send:
        break;
      case step::start_tls: {
        const auto [is_secure, about] = co_await stream_.upgrade(tls_->current());
        if (!is_secure) {
          say_rarely(home_.troubles, spdlog::level::warn, "{}: no TLS: {}, closing", stream_.peer(), about);
          co_return false;
        }
        spdlog::info("{}: {}", stream_.peer(), about);
        break;
      }
      case step::need_bytes: {
        const auto got = co_await stream_.read_some(target);
        if (got.failure) {
          spdlog::debug("{}: left during the handshake: {}", stream_.peer(), got.failure.message());
          co_return false;
        }
        received = std::span(buffer).first(got.bytes);
        break;
      }
      case step::enter_transmission:
        read_ahead_.assign(received.begin(), received.end());
        co_return true;
      case step::close:
        if (action.why)
          say_rarely(home_.troubles, spdlog::level::warn, "{}: {}, closing", stream_.peer(),
                     action.why.message());
        co_return false;
    }
  }
}

asio::awaitable<void> connection::transmit() {
  const protocol::terms& agreed = handshake_.agreed();
  spdlog::info("{}: serving export '{}'", stream_.peer(), agreed.chosen->name);
  session_ = std::make_unique<session>(stream_, home_, served_.device_of(*agreed.chosen), *place_, agreed,
                                       limits_.session);
  // The answer that ended the handshake may have been on its way when the stop came.
  if (stopping_) session_->stop();
  const std::error_code why = co_await session_->run(read_ahead_);
  session_.reset();
  if (!why) {
    spdlog::info("{}: disconnected", stream_.peer());
  } else if (why == make_error_code(asio::error::eof)) {
    spdlog::info("{}: closed the connection without NBD_CMD_DISC", stream_.peer());
  } else {
    say_rarely(home_.troubles, spdlog::level::warn, "{}: connection ended: {}", stream_.peer(),
               why.message());
  }
}

}  // namespace aionbd::server
