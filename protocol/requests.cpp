#include "protocol/requests.hpp"

#include <algorithm>
#include <cassert>
#include <limits>

#include "protocol/error.hpp"
#include "protocol/wire.hpp"

namespace aionbd::protocol {
namespace {

bool changes_data(command what) noexcept {
  return what == command::write || what == command::trim || what == command::write_zeroes;
}

// A request for something that was not advertised is EINVAL, like an unknown one ("Request types").
bool is_served(command what, std::uint16_t offered, const terms& agreed) noexcept {
  switch (what) {
    case command::read:
    case command::write:
      return true;
    case command::flush:
      return (offered & transmission_flag::send_flush) != 0;
    case command::trim:
      return (offered & transmission_flag::send_trim) != 0;
    case command::cache:
      return (offered & transmission_flag::send_cache) != 0;
    case command::write_zeroes:
      return (offered & transmission_flag::send_write_zeroes) != 0;
    case command::block_status:
      return agreed.allocation_selected && agreed.replies != reply_mode::simple;
    case command::resize:
    case command::disc:
      return false;
  }
  return false;
}

// "Command flags": FUA is good on every command once it is offered, because existing clients set it
// everywhere. The others belong to one command each, and most of them to what was agreed.
unsigned flags_allowed(command what, std::uint16_t offered, reply_mode mode) noexcept {
  const auto flag_if = [&](std::uint16_t advertised, std::uint16_t flag) -> unsigned {
    return (offered & advertised) != 0 ? flag : 0U;
  };
  const unsigned fua = flag_if(transmission_flag::send_fua, command_flag::fua);
  switch (what) {
    case command::read:
      return fua | flag_if(transmission_flag::send_df, command_flag::df);
    case command::write:
      return fua | (mode == reply_mode::extended ? command_flag::payload_len : 0U);
    case command::write_zeroes:
      return fua | command_flag::no_hole |
             flag_if(transmission_flag::send_fast_zero, command_flag::fast_zero);
    case command::block_status:
      return fua | command_flag::req_one |
             flag_if(transmission_flag::block_status_payload, command_flag::payload_len);
    default:
      return fua;
  }
}

// The advertised maximum binds a client that asked for it; every other client may rely on the default.
bool payload_fits(const request& asked, const terms& agreed) noexcept {
  if (asked.what != command::read && asked.what != command::write) return true;
  const std::uint32_t length_max = agreed.block_sizes_requested
                                       ? std::min(agreed.chosen->block_size_max, request_payload_max)
                                       : request_payload_max;
  return asked.length <= length_max;
}

// "Size constraints". Clients that did not ask for them may use any offset and any length.
bool is_aligned(const request& asked, const terms& agreed) noexcept {
  const std::uint32_t alignment = agreed.chosen->block_size_min;
  if (!agreed.block_sizes_requested || alignment <= 1) return true;
  return asked.offset % alignment == 0 && asked.length % alignment == 0;
}

// Written so that no sum can wrap, whatever the client sends.
bool is_within(const request& asked, std::uint64_t size) noexcept {
  return asked.offset <= size && asked.length <= size - asked.offset;
}

struct verdict {
  error result = error::none;
  std::string_view sentence;
};

// "Error values": what grows past the end is out of space, what only looks past the end is a mistake.
verdict past_end(command what) noexcept {
  switch (what) {
    case command::write:
      return {error::enospc, "The write reaches past the end of the export."};
    case command::write_zeroes:
      return {error::enospc, "The zeroes reach past the end of the export."};
    case command::read:
      return {error::einval, "The read reaches past the end of the export."};
    default:
      return {error::einval, "The request reaches past the end of the export."};
  }
}

// A longer READ would be a longer reply than a client may be sent. It cannot be split among simple replies,
// so it is EINVAL there; EOVERFLOW invites to ask again in pieces, and is for clients that know DF. A longer
// WRITE has no other error in the text at all.
verdict too_long(command what, reply_mode mode) noexcept {
  if (what == command::write) return {error::einval, "The write is longer than the largest payload."};
  constexpr std::string_view sentence = "The read is longer than the largest payload.";
  return {mode == reply_mode::simple ? error::einval : error::eoverflow, sentence};
}

verdict judge_range(const request& asked, const terms& agreed) noexcept {
  if (!is_within(asked, agreed.chosen->size)) return past_end(asked.what);
  if (!payload_fits(asked, agreed)) return too_long(asked.what, agreed.replies);
  if (!is_aligned(asked, agreed)) return {error::einval, "The request is not a multiple of the block size."};
  // Every answer describes at least one byte, and with REQ_ONE no more than were asked for.
  if (asked.what == command::block_status && asked.length == 0) {
    return {error::einval, "A block status must cover at least one byte."};
  }
  return {};
}

verdict judge(const request& asked, const terms& agreed) noexcept {
  if (asked.what == command::disc) return {};
  const std::uint16_t offered = offered_flags(*agreed.chosen, agreed);
  // First, because it is what the user of a read-only export should hear, whatever else is wrong with the
  // request.
  if ((offered & transmission_flag::read_only) != 0 && changes_data(asked.what)) {
    return {error::eperm, "The export is read-only."};
  }
  if (!is_served(asked.what, offered, agreed)) {
    return {error::einval, asked.what == command::block_status ? "No metadata context was selected."
                                                               : "The command was not advertised."};
  }
  if ((asked.flags & ~flags_allowed(asked.what, offered, agreed.replies)) != 0) {
    return {error::einval, "A flag does not belong to the command, or was not advertised."};
  }
  // FLUSH has no range: its offset and length are reserved, and a client that leaves something there is not
  // punished.
  if (asked.what == command::flush) return {};
  if (!has_block_status_payload(asked, agreed.replies)) return judge_range(asked, agreed);
  if (asked.length == block_status_payload_size) return {};
  return {error::einval, "The payload is not a length and the one context that is selected."};
}

std::string_view sentence_for(error result) noexcept {
  switch (result) {
    case error::none:
      return {};
    case error::eperm:
      return "The server lacks permission for this.";
    case error::eio:
      return "The server's storage failed; its log says more.";
    case error::enomem:
      return "The server has no memory for this request now.";
    case error::einval:
      return "The request is not valid.";
    case error::enospc:
      return "There is no space left for the export.";
    case error::eoverflow:
      return "The request is too long for one answer.";
    case error::enotsup:
      return "The range cannot be zeroed quickly.";
    case error::eshutdown:
      return "The server is shutting down.";
  }
  return "The request failed.";
}

request read_fields(reader& in) noexcept {
  request result;
  result.flags = in.number<std::uint16_t>();
  result.what = static_cast<command>(in.number<std::uint16_t>());
  result.cookie = in.number<std::uint64_t>();
  result.offset = in.number<std::uint64_t>();
  return result;
}

void write_fields(writer& out, const request& sent) noexcept {
  out.number(sent.flags)
      .number(static_cast<std::uint16_t>(sent.what))
      .number(sent.cookie)
      .number(sent.offset);
}

}  // namespace

std::optional<request> decode_request(std::span<const std::byte, request_size> from) noexcept {
  reader in(from);
  if (in.number<std::uint32_t>() != request_magic) return std::nullopt;
  request result = read_fields(in);
  result.length = in.number<std::uint32_t>();
  return result;
}

std::optional<request> decode_request(std::span<const std::byte> header, reply_mode mode) noexcept {
  assert(header.size() >= request_header_size(mode));
  if (mode != reply_mode::extended) return decode_request(header.first<request_size>());
  reader in(header);
  if (in.number<std::uint32_t>() != extended_request_magic) return std::nullopt;
  request result = read_fields(in);
  result.length = in.number<std::uint64_t>();
  return result;
}

void encode_request(std::span<std::byte, request_size> to, const request& sent) noexcept {
  assert(sent.length <= std::numeric_limits<std::uint32_t>::max());
  writer out(to);
  out.number(request_magic);
  write_fields(out, sent);
  out.number(static_cast<std::uint32_t>(sent.length));
}

void encode_request(std::span<std::byte> header, const request& sent, reply_mode mode) noexcept {
  assert(header.size() >= request_header_size(mode));
  if (mode != reply_mode::extended) return encode_request(header.first<request_size>(), sent);
  writer out(header);
  out.number(extended_request_magic);
  write_fields(out, sent);
  out.number(sent.length);
}

std::uint64_t payload_length(const request& asked, reply_mode mode) noexcept {
  // "Command flags" wants PAYLOAD_LEN on a WRITE with extended headers, because that always has a payload.
  // QEMU's client sends the payload and leaves out the flag, and to take its bytes for requests would end the
  // connection.
  const bool is_announced = mode == reply_mode::extended && (asked.flags & command_flag::payload_len) != 0;
  return is_announced || asked.what == command::write ? asked.length : 0;
}

bool payload_is_past_all_limits(const request& asked, reply_mode mode) noexcept {
  const std::uint32_t length_max = mode == reply_mode::extended ? request_payload_max : payload_drain_max;
  return payload_length(asked, mode) > length_max;
}

error validate(const request& asked, const terms& agreed) noexcept {
  assert(agreed.chosen != nullptr);
  return judge(asked, agreed).result;
}

void encode(std::span<std::byte, block_status_payload_size> to, const block_status_payload& sent) noexcept {
  writer(to).number(sent.effect_length).number(sent.context_id);
}

block_status_payload decode_block_status_payload(
    std::span<const std::byte, block_status_payload_size> from) noexcept {
  reader in(from);
  block_status_payload result;
  result.effect_length = in.number<std::uint64_t>();
  result.context_id = in.number<std::uint32_t>();
  return result;
}

bool has_block_status_payload(const request& asked, reply_mode mode) noexcept {
  return mode == reply_mode::extended && asked.what == command::block_status &&
         (asked.flags & command_flag::payload_len) != 0;
}

error take_block_status_payload(request& asked, std::span<const std::byte, block_status_payload_size> payload,
                                const terms& agreed) noexcept {
  assert(has_block_status_payload(asked, agreed.replies));
  const block_status_payload chosen = decode_block_status_payload(payload);
  if (chosen.context_id != allocation_context_id) return error::einval;
  asked.length = chosen.effect_length;
  asked.flags = static_cast<std::uint16_t>(asked.flags & ~command_flag::payload_len);
  return validate(asked, agreed);
}

std::string_view sentence_for(error result, const request& failed, const terms& agreed) noexcept {
  const verdict objection = judge(failed, agreed);
  if (result == objection.result) return objection.sentence;
  if (result == error::einval && has_block_status_payload(failed, agreed.replies)) {
    return "The payload names a metadata context that was not selected.";
  }
  return sentence_for(result);
}

error error_for(const request& failed, const std::error_code& why) noexcept {
  const error flattened = to_nbd_error(why);
  // What a sync had no room for is gone. A client that waits for room and asks again would be told that all
  // is well.
  if (flattened == error::enospc && failed.what == command::flush) return error::eio;
  const bool may_be_unsupported =
      failed.what == command::write_zeroes && (failed.flags & command_flag::fast_zero) != 0;
  return flattened == error::enotsup && !may_be_unsupported ? error::eio : flattened;
}

}  // namespace aionbd::protocol
