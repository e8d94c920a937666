#include "server/session.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <exception>
#include <new>

#include "protocol/error.hpp"
#include "protocol/requests.hpp"
#include "server/answers.hpp"
#include "server/device_request.hpp"
#include "server/log.hpp"

namespace aionbd::server {

namespace {

namespace asio = boost::asio;
using protocol::command;
using protocol::error;

// A payload that misses this much is read straight to where it belongs, with a little of what follows it; a
// smaller one comes by way of the receive buffer, together with many others.
constexpr std::uint64_t large_payload = std::uint64_t{32} << 10;
constexpr std::size_t beside_large_payload = 4096;

// So many requests are begun before those that have finished meanwhile are answered.
constexpr std::size_t answer_every = 8;

}  // namespace

session::session(transport& stream, loop& home, storage::block_device& device, fence::member& place,
                 const protocol::terms& agreed, const session_limits& limits)
    : stream_(stream),
      home_(home),
      device_(device),
      agreed_(agreed),
      limits_(limits),
      place_(place),
      slots_(limits.requests_max),
      witness_(device.new_witness()),
      writer_(
          stream, [this](request_slot& slot) { release(slot); }, [this] { wake(); }),
      progress_(home.context),
      failures_(stream.peer()) {}

asio::awaitable<std::error_code> session::run(std::span<const std::byte> read_ahead) {
  std::exception_ptr escaped;
  try {
    co_await wait_for_those_ahead();
    co_await serve(read_ahead);
  } catch (...) {
    escaped = std::current_exception();
  }
  begins_no_more_ = true;
  leave_if_all_is_begun();
  // Its client may be back as a new one before all that is under way has ended.
  const bool was_lost = escaped || ended_by_ || writer_.failure();
  if (was_lost) device_.dismiss(witness_, true);
  // However it ended, the kernel and the writer may still be using our buffers.
  co_await drain();
  if (!was_lost) device_.dismiss(witness_, bool(writer_.failure()));
  if (escaped) std::rethrow_exception(escaped);
  co_return ended_by_;
}

// They are not many, and gone in a moment, unless their storage has come to a halt, or they do not read.
asio::awaitable<void> session::wait_for_those_ahead() {
  if (device_.shape().read_only) co_return;  // reads can come in any order
  is_behind_others_ = !place_.enter(*this);
  const auto deadline = std::chrono::steady_clock::now() + limits_.patience_with_the_gone;
  while (is_behind_others_ && !place_.is_barred() && std::chrono::steady_clock::now() < deadline) {
    co_await wait_for_progress(deadline);
  }
  if (!is_behind_others_ || place_.is_barred()) co_return;
  say_rarely(home_.troubles, spdlog::level::warn,
             "{}: unfinished requests of clients that left held this session up; cancelling them",
             stream_.peer());
  place_.bar_those_ahead();
  is_behind_others_ = !place_.stop_waiting();
  while (is_behind_others_) co_await wait_for_progress(std::chrono::steady_clock::time_point::max());
}

// Its client has gone, or says no more and may never take its replies. Whom we have heard to the end has its
// time to fetch them as ever.
void session::was_barred() noexcept {
  if (!begins_no_more_) stream_.shut_down();
  wake();
}

asio::awaitable<void> session::serve(std::span<const std::byte> read_ahead) {
  std::copy(read_ahead.begin(), read_ahead.end(), received_.space().begin());
  received_.filled(read_ahead.size());
  for (;;) {
    // What waited for room is not begun for a client that has gone: it may have come back already, and must
    // not find its last words behind its next.
    if (writer_.failure() || place_.is_barred()) {
      ended_by_ = writer_.failure() ? writer_.failure() : make_error_code(std::errc::connection_aborted);
      break;
    }
    progressed_ = false;
    const pause reason = handle_received();
    home_.queue.flush();
    answer_finished();
    writer_.send();
    if (reason == pause::over) break;
    if (writer_.failure()) continue;
    if (reason == pause::need_room) {
      // The replies that have just left may have made room: nobody would wake us for that a second time.
      if (!progressed_) co_await wait_for_progress(std::chrono::steady_clock::time_point::max());
      continue;
    }
    const transport::read_result got = co_await stream_.read_some(read_target());
    if (got.failure) {
      ended_by_ = got.failure;
      break;
    }
    accept_bytes(got.bytes);
  }
}

// What a file system in memory is asked for has finished when it was submitted. Were all of a burst answered
// at its end, client and server would take turns instead of working at the same time.
void session::answer_finished() {
  if (home_.queue.deliver_finished() != 0) home_.completions.end();
}

session::pause session::handle_received() {
  for (std::size_t begun = 1;; ++begun) {
    if (begun % answer_every == 0) answer_finished();
    if (writer_.failure()) return pause::need_bytes;
    if (said_all_) received_.consume(received_.bytes().size());
    if (incoming_ != nullptr && !take_payload()) return pause::need_bytes;
    if (received_.bytes().size() < protocol::request_header_size(agreed_.replies)) return pause::need_bytes;
    if (const pause reason = handle_header(); reason != pause::need_bytes) return reason;
  }
}

// need_bytes: the request was begun, go on with what follows it.
session::pause session::handle_header() {
  const auto asked = protocol::decode_request(received_.bytes(), agreed_.replies);
  if (!asked) return end(protocol::protocol_errc::bad_magic);
  if (asked->what == command::disc) return end({});
  if (protocol::payload_is_past_all_limits(*asked, agreed_.replies)) {
    return end(protocol::protocol_errc::payload_too_long);
  }

  const error refusal = stopping_ ? error::eshutdown : protocol::validate(*asked, agreed_);
  if (!slots_.has_one()) return pause::need_room;
  if (refusal == error::none && !has_room_for(*asked)) return pause::need_room;
  received_.consume(protocol::request_header_size(agreed_.replies));
  begin(*asked, refusal);
  return pause::need_bytes;
}

session::pause session::end(std::error_code why) {
  ended_by_ = why;
  return pause::over;
}

void session::begin(const protocol::request& asked, error refusal) {
  request_slot& slot = slots_.take();
  slot.home = this;
  slot.asked = asked;
  if (refusal == error::none && !attach_buffer(slot)) refusal = error::enomem;

  payload_length_ = payload_left_ = protocol::payload_length(asked, agreed_.replies);
  if (payload_left_ != 0) {
    incoming_ = &slot;
    refusal_ = refusal;
  } else if (refusal != error::none) {
    refuse(slot, refusal);
  } else {
    submit(slot);
  }
}

// True when the payload is complete and its request begun.
bool session::take_payload() {
  const auto here = received_.bytes();
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(here.size(), payload_left_));
  if (incoming_->payload != nullptr && count != 0) {
    std::memcpy(incoming_->payload + (payload_length_ - payload_left_), here.data(), count);
  }
  received_.consume(count);
  payload_left_ -= count;
  if (payload_left_ != 0) return false;
  finish_payload();
  return true;
}

void session::finish_payload() {
  request_slot& slot = *incoming_;
  incoming_ = nullptr;
  error refusal = refusal_;
  if (refusal == error::none && protocol::has_block_status_payload(slot.asked, agreed_.replies)) {
    refusal = protocol::take_block_status_payload(slot.asked, slot.status_payload, agreed_);
  }
  if (refusal != error::none) return refuse(slot, refusal);
  submit(slot);
}

void session::submit(request_slot& slot) {
  storage::operation& work = slot.work;
  describe(slot.asked, agreed_.replies, work);
  work.memory = slot.buffer.data();
  work.witness = &witness_;
  work.is_called_off = &place_.is_barred();
  if (goes_in_steps(work.kind)) ++stepping_;
  work.owner = &slot;
  work.done = &session::on_done;
  device_.submit(work, home_.queue);
}

// Called while the queue drains, for this session and for others: nothing may be thrown here.
void session::on_done(storage::operation& work) noexcept {
  request_slot& slot = *static_cast<request_slot*>(work.owner);
  session& self = *slot.home;
  if (goes_in_steps(work.kind)) --self.stepping_;
  self.leave_if_all_is_begun();
  self.answer(slot);
  self.writer_.add(slot);
  if (self.will_be_called_) return;
  self.will_be_called_ = true;
  self.home_.completions.call_after_drain(self);
}

// A long answer needs memory. A short one, an error's above all, has what it needs since its slot was made.
void session::answer(request_slot& slot) noexcept {
  if (!slot.work.failure) {
    try {
      return answer_success(slot, agreed_);
    } catch (const std::bad_alloc&) {
      slot.reply.clear();
      slot.work.failure = std::make_error_code(std::errc::not_enough_memory);
    }
  }
  failures_.add(slot.asked, slot.work.failure);
  answer_error(slot, agreed_, protocol::error_for(slot.asked, slot.work.failure), slot.work.failed_at);
}

// The reply leaves with the others of this turn.
void session::refuse(request_slot& slot, error why) {
  answer_error(slot, agreed_, why);
  writer_.add(slot);
}

void session::after_completions() {
  will_be_called_ = false;
  writer_.send();
}

void session::leave_if_all_is_begun() noexcept {
  if (begins_no_more_ && stepping_ == 0) place_.leave();
}

bool session::has_room_for(const protocol::request& asked) const {
  const std::size_t charge = memory_for(asked, device_);
  return charge == 0 || in_flight_bytes_ == 0 || in_flight_bytes_ + charge <= limits_.in_flight_bytes_max;
}

// False when there is no memory.
bool session::attach_buffer(request_slot& slot) {
  const std::size_t charge = memory_for(slot.asked, device_);
  slot.payload = slot.asked.what == command::block_status ? slot.status_payload.data() : nullptr;
  slot.charged = charge;
  in_flight_bytes_ += charge;
  if (charge == 0 || !carries_data(slot.asked.what)) return true;
  slot.buffer = home_.buffers.acquire(charge);
  if (!slot.buffer) return false;
  slot.payload = slot.buffer.data() +
                 device_.layout(kind_of(slot.asked.what), slot.asked.offset, slot.asked.length).payload;
  return true;
}

void session::release(request_slot& slot) {
  in_flight_bytes_ -= slot.charged;
  slots_.give_back(slot);
  end_if_stopped();
  wake();
}

transport::read_buffers session::read_target() {
  if (incoming_ == nullptr || incoming_->payload == nullptr) {
    const auto space = received_.space();
    return {asio::buffer(space.data(), space.size())};
  }
  const auto space =
      received_.space(payload_left_ >= large_payload ? beside_large_payload : receive_buffer::capacity);
  std::byte* const rest = incoming_->payload + (payload_length_ - payload_left_);
  return {asio::buffer(rest, payload_left_), asio::buffer(space.data(), space.size())};
}

void session::accept_bytes(std::size_t count) {
  if (incoming_ == nullptr || incoming_->payload == nullptr) return received_.filled(count);
  const auto direct = static_cast<std::size_t>(std::min<std::uint64_t>(count, payload_left_));
  payload_left_ -= direct;
  received_.filled(count - direct);
}

void session::stop() {
  stopping_ = true;
  end_if_stopped();
}

// A stream that ends both ways answers what the client still sends with a reset, and a reset overtakes
// replies that are on their way. So a client that has not got all of them ends the connection itself, or the
// server's deadline does.
void session::end_if_stopped() {
  if (!stopping_ || slots_.in_use() != 0 || said_all_) return;
  if (stream_.has_delivered_all()) return stream_.shut_down();
  said_all_ = true;
  stream_.finish_sending();
}

void session::wake() {
  progressed_ = true;
  if (waiting_) progress_.cancel();
}

asio::awaitable<void> session::wait_for_progress(std::chrono::steady_clock::time_point deadline) {
  progress_.expires_at(deadline);
  waiting_ = true;
  co_await progress_.async_wait(asio::as_tuple(asio::use_awaitable));
  waiting_ = false;
}

// The kernel may still be writing to our buffers, and the client may still want its replies.
asio::awaitable<void> session::drain() {
  if (is_behind_others_) is_behind_others_ = !place_.stop_waiting();
  if (incoming_ != nullptr) {
    release(*incoming_);
    incoming_ = nullptr;
  }
  const auto deadline = std::chrono::steady_clock::now() + limits_.linger;
  bool cut_off = false;
  while (slots_.in_use() != 0 || writer_.is_waiting() || is_behind_others_ ||
         place_.is_word_of_bar_under_way()) {
    co_await wait_for_progress(cut_off ? std::chrono::steady_clock::time_point::max() : deadline);
    if (cut_off || std::chrono::steady_clock::now() < deadline) continue;
    cut_off = true;
    stream_.shut_down();
  }
}

}  // namespace aionbd::server
