#include "protocol/handshake.hpp"

#include <algorithm>
#include <string>

#include "protocol/error.hpp"
#include "protocol/text.hpp"
#include "protocol/wire.hpp"

namespace aionbd::protocol {
namespace {

// The options whose data we look at. All other data is skipped as it comes, however long it is.
bool reads_data_of(option what) noexcept {
  return what == option::export_name || what == option::info || what == option::go;
}

std::string text_of(std::span<const std::byte> bytes) {
  return reader(bytes).text(bytes.size());
}

std::string unsupported_sentence(option what) {
  return "Option " + std::to_string(static_cast<std::uint32_t>(what)) + " (" + std::string(to_string(what)) +
         ") is not supported.";
}

}  // namespace

handshake::handshake(std::span<const export_info> exports, handshake_limits limits)
    : exports_(exports), limits_(limits), bytes_left_(limits.total_bytes_max) {}

handshake::action handshake::resume(std::span<const std::byte> received) {
  output_.clear();
  std::size_t consumed = 0;
  outcome reached;
  do {
    consumed += gather(received.subspan(consumed));
    if (awaited_ > 0) return {step::need_bytes, consumed, {}};
    reached = advance();
  } while (reached.what == step::need_bytes);
  return {reached.what, consumed, reached.why};
}

void handshake::await(state next, std::uint32_t length) {
  state_ = next;
  awaited_ = length;
  input_.clear();
}

std::size_t handshake::gather(std::span<const std::byte> received) {
  const std::size_t length = std::min<std::size_t>(awaited_, received.size());
  const auto taken = received.first(length);
  if (state_ != state::skipping) input_.insert(input_.end(), taken.begin(), taken.end());
  awaited_ -= static_cast<std::uint32_t>(length);
  return length;
}

// One transition, taken when the present state has all the bytes it waits for. need_bytes means: on to the
// next state.
handshake::outcome handshake::advance() {
  switch (state_) {
    case state::greeting:
      encode(grown<greeting_size>(output_),
             greeting{handshake_flag::fixed_newstyle | handshake_flag::no_zeroes});
      await(state::client_flags, client_flags_size);
      return {step::send, {}};
    case state::client_flags:
      return accept_client_flags();
    case state::option_header:
      return begin_option();
    case state::option_data:
    case state::skipping:
      return answer_option();
    case state::listing:
      return continue_list();
    case state::agreed:
      return {step::enter_transmission, {}};
    case state::closed:
      break;
  }
  return {step::close, {}};
}

handshake::outcome handshake::accept_client_flags() {
  const std::uint32_t flags = decode_client_flags(std::span(input_).first<client_flags_size>()).flags;
  // "Client flags": the server MUST drop the connection if it does not know them all.
  if ((flags & ~(client_flag::fixed_newstyle | client_flag::no_zeroes)) != 0) {
    return close(protocol_errc::unknown_client_flags);
  }
  fixed_newstyle_ = (flags & client_flag::fixed_newstyle) != 0;
  agreed_.no_zeroes = (flags & client_flag::no_zeroes) != 0;
  await(state::option_header, option_header_size);
  return {};
}

handshake::outcome handshake::begin_option() {
  const auto header = decode_option_header(std::span(input_).first<option_header_size>());
  if (!header) return close(protocol_errc::bad_magic);
  option_ = *header;
  if (++options_seen_ > limits_.options_max) return close(protocol_errc::option_limit);
  const std::uint64_t cost = std::uint64_t{option_header_size} + option_.length;
  if (cost > bytes_left_) return close(protocol_errc::handshake_too_long);
  bytes_left_ -= cost;
  // "Newstyle negotiation": without fixed newstyle, EXPORT_NAME is the only option, and no other answer is
  // understood.
  if (!fixed_newstyle_ && option_.what != option::export_name)
    return close(protocol_errc::fixed_newstyle_required);
  // A name that is too long has no answer either, so there is no use in reading it.
  if (option_.what == option::export_name && option_.length > name_length_max) {
    return close(protocol_errc::malformed_export_name);
  }
  const bool kept = reads_data_of(option_.what) && option_.length <= limits_.option_length_max;
  await(kept ? state::option_data : state::skipping, option_.length);
  return {};
}

// The option's data has been consumed, whatever the answer is going to be.
handshake::outcome handshake::answer_option() {
  if (option_.what == option::abort) {
    append_option_reply(output_, option::abort, option_reply::ack);
    return close();
  }
  if (shutting_down_) {
    if (option_.what == option::export_name) return close();
    return reply(option_reply::err_shutdown, "The server is shutting down.");
  }
  switch (option_.what) {
    case option::export_name:
      return answer_export_name();
    case option::list:
      return answer_list();
    case option::info:
    case option::go:
      return answer_export_query();
    case option::abort:
    case option::peek_export:
    case option::starttls:
    case option::structured_reply:
    case option::list_meta_context:
    case option::set_meta_context:
    case option::extended_headers:
      break;
  }
  return reply(option_reply::err_unsup, unsupported_sentence(option_.what));
}

handshake::outcome handshake::answer_export_name() {
  // Only limits that are smaller than the longest name can bring this about; see begin_option().
  if (state_ == state::skipping) return close(protocol_errc::malformed_export_name);
  const std::string name = text_of(input_);
  if (!is_well_formed(name)) return close(protocol_errc::malformed_export_name);
  const export_info* const chosen = find(name);
  if (chosen == nullptr) return close(protocol_errc::unknown_export);
  encode(grown<export_name_reply_size>(output_),
         export_name_reply{chosen->size, offered_flags(*chosen, agreed_)});
  if (!agreed_.no_zeroes) output_.resize(output_.size() + export_name_zeroes);
  return enter(*chosen, false);
}

handshake::outcome handshake::answer_list() {
  if (option_.length > 0) return reply(option_reply::err_invalid, "LIST takes no data.");
  listed_ = 0;
  await(state::listing, 0);
  return {};
}

handshake::outcome handshake::continue_list() {
  while (listed_ < exports_.size()) {
    if (output_.size() >= limits_.list_bytes_per_send) return {step::send, {}};
    const export_info& offered = exports_[listed_++];
    append_list_entry(output_, offered.name, offered.description);
  }
  return reply(option_reply::ack);
}

// INFO and GO differ only in what follows the same answers: INFO binds nothing.
handshake::outcome handshake::answer_export_query() {
  if (state_ == state::skipping) {
    return reply(option_reply::err_too_big, "The option's data is longer than this server reads.");
  }
  const auto query = decode_export_query(input_);
  if (!query) {
    return reply(option_reply::err_invalid,
                 "The export's name and the list of information requests do not fill the option.");
  }
  if (!is_well_formed(query->name)) {
    return reply(option_reply::err_invalid,
                 "The export's name is not UTF-8 of at most 4096 bytes without NUL.");
  }
  const export_info* const chosen = find(query->name);
  if (chosen == nullptr)
    return reply(option_reply::err_unknown, "There is no export \"" + query->name + "\".");
  describe(*chosen, *query);
  const outcome answered = reply(option_reply::ack);
  return option_.what == option::go ? enter(*chosen, query->wants_block_size) : answered;
}

handshake::outcome handshake::reply(option_reply what, std::string_view sentence) {
  append_option_reply(output_, option_.what, what, sentence);
  await(state::option_header, option_header_size);
  return {step::send, {}};
}

handshake::outcome handshake::enter(const export_info& chosen, bool block_sizes_requested) {
  agreed_.chosen = &chosen;
  agreed_.block_sizes_requested = block_sizes_requested;
  await(state::agreed, 0);
  return {step::enter_transmission, {}};
}

handshake::outcome handshake::close(std::error_code why) {
  await(state::closed, 0);
  return {step::close, why};
}

// The empty name is the default export: the one of that name, or else the only one. With several exports and
// none of them nameless, a guess could hand out the wrong disk.
const export_info* handshake::find(std::string_view name) const noexcept {
  const auto found =
      std::find_if(exports_.begin(), exports_.end(), [&](const auto& each) { return each.name == name; });
  if (found != exports_.end()) return &*found;
  return name.empty() && exports_.size() == 1 ? &exports_.front() : nullptr;
}

// The export's size and flags are sent asked or not; everything else only to those who asked for it.
void handshake::describe(const export_info& offered, const export_query& asked) {
  append_info(output_, option_.what, info_export{offered.size, offered_flags(offered, agreed_)});
  if (asked.wants_name) append_info(output_, option_.what, info::name, offered.name);
  if (asked.wants_description && !offered.description.empty()) {
    append_info(output_, option_.what, info::description, offered.description);
  }
  if (asked.wants_block_size) {
    append_info(
        output_, option_.what,
        info_block_size{offered.block_size_min, offered.block_size_preferred, offered.block_size_max});
  }
}

}  // namespace aionbd::protocol
