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
bool is_served(command what, std::uint16_t offered) noexcept {
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
    case command::block_status:  // Needs a metadata context, which cannot be agreed yet.
    case command::resize:
    case command::disc:
      return false;
  }
  return false;
}

// "Command flags": FUA is good on every command once it is offered, because existing clients set it
// everywhere. DF, REQ_ONE and PAYLOAD_LEN belong to what was not agreed, so they are refused like unknown
// bits.
unsigned flags_allowed(command what, std::uint16_t offered) noexcept {
  unsigned allowed = 0;
  if ((offered & transmission_flag::send_fua) != 0) allowed |= command_flag::fua;
  if (what != command::write_zeroes) return allowed;
  allowed |= command_flag::no_hole;
  if ((offered & transmission_flag::send_fast_zero) != 0) allowed |= command_flag::fast_zero;
  return allowed;
}

// The advertised maximum binds a client that asked for it; every other client may rely on the default.
// A longer READ would be a longer reply than a client may be sent, and cannot be split among simple replies,
// so it is EINVAL: EOVERFLOW invites a retry in structured mode, and a longer WRITE has no other error in the
// text at all.
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

// "Error values": what grows past the end is out of space, what only looks past the end is a mistake.
error error_past_end(command what) noexcept {
  return what == command::write || what == command::write_zeroes ? error::enospc : error::einval;
}

}  // namespace

std::optional<request> decode_request(std::span<const std::byte, request_size> from) noexcept {
  reader in(from);
  if (in.number<std::uint32_t>() != request_magic) return std::nullopt;
  request result;
  result.flags = in.number<std::uint16_t>();
  result.what = static_cast<command>(in.number<std::uint16_t>());
  result.cookie = in.number<std::uint64_t>();
  result.offset = in.number<std::uint64_t>();
  result.length = in.number<std::uint32_t>();
  return result;
}

void encode_request(std::span<std::byte, request_size> to, const request& sent) noexcept {
  assert(sent.length <= std::numeric_limits<std::uint32_t>::max());
  writer(to)
      .number(request_magic)
      .number(sent.flags)
      .number(static_cast<std::uint16_t>(sent.what))
      .number(sent.cookie)
      .number(sent.offset)
      .number(static_cast<std::uint32_t>(sent.length));
}

std::uint64_t payload_length(const request& asked) noexcept {
  return asked.what == command::write ? asked.length : 0;
}

bool payload_is_past_all_limits(const request& asked) noexcept {
  return payload_length(asked) > payload_drain_max;
}

error validate(const request& asked, const terms& agreed) noexcept {
  assert(agreed.chosen != nullptr);
  if (asked.what == command::disc) return error::none;
  const std::uint16_t offered = offered_flags(*agreed.chosen, agreed);
  // First, because it is what the user of a read-only export should hear, whatever else is wrong with the
  // request.
  if ((offered & transmission_flag::read_only) != 0 && changes_data(asked.what)) return error::eperm;
  if (!is_served(asked.what, offered)) return error::einval;
  if ((asked.flags & ~flags_allowed(asked.what, offered)) != 0) return error::einval;
  // FLUSH has no range: its offset and length are reserved, and a client that leaves something there is not
  // punished.
  if (asked.what == command::flush) return error::none;
  if (!payload_fits(asked, agreed)) return error::einval;
  if (!is_within(asked, agreed.chosen->size)) return error_past_end(asked.what);
  return is_aligned(asked, agreed) ? error::none : error::einval;
}

error error_for(const request& failed, const std::error_code& why) noexcept {
  const error flattened = to_nbd_error(why);
  const bool may_be_unsupported =
      failed.what == command::write_zeroes && (failed.flags & command_flag::fast_zero) != 0;
  return flattened == error::enotsup && !may_be_unsupported ? error::eio : flattened;
}

}  // namespace aionbd::protocol
