#include "protocol/handshake.hpp"

#include <algorithm>
#include <string>

#include "protocol/error.hpp"
#include "protocol/text.hpp"
#include "protocol/wire.hpp"

namespace aionbd::protocol {
namespace {

constexpr std::string_view name_is_malformed =
    "The export's name must be UTF-8 of at most 4096 bytes, without NUL.";
constexpr std::string_view data_is_too_long = "The option's data is longer than this server reads.";

std::string text_of(std::span<const std::byte> bytes) {
  return reader(bytes).text(bytes.size());
}

std::string unsupported_sentence(option what) {
  return "Option " + std::to_string(static_cast<std::uint32_t>(what)) + " (" + std::string(to_string(what)) +
         ") is not supported.";
}

std::string unknown_sentence(const std::string& name) {
  return "There is no export \"" + name + "\".";
}

// "Metadata querying": a namespace that is not empty, a colon, and anything after it.
bool is_well_formed_query(std::string_view query) noexcept {
  const std::size_t colon = query.find(':');
  return colon != std::string_view::npos && colon > 0 && is_well_formed(query);
}

// "The base: metadata namespace": an empty leaf name stands for every context in LIST, and for none in SET.
bool finds_allocation(std::string_view query, option asking) noexcept {
  return query == allocation_context || (asking == option::list_meta_context && query == "base:");
}

}  // namespace

handshake::handshake(std::span<const export_info> exports, handshake_limits limits, handshake_offers offers)
    : exports_(exports), limits_(limits), offers_(offers), bytes_left_(limits.total_bytes_max) {}

handshake::action handshake::resume(std::span<const std::byte> received) {
  output_.clear();
  std::size_t consumed = 0;
  outcome reached;
  do {
    consumed += gather(received.subspan(consumed));
    if (awaited_ > 0) return {step::need_bytes, consumed, {}};
    reached = advance();
  } while (reached.what == step::need_bytes);
  // Whoever listens in may have put them there, to be taken for what the client says through TLS. A client
  // waits for the answer.
  if (reached.what == step::start_tls && consumed < received.size()) {
    output_.clear();
    reached = close(protocol_errc::bytes_ahead_of_tls);
  }
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
  // "NBD_OPT_SET_META_CONTEXT": it replaces the earlier choice even when it fails, whatever it fails of.
  if (option_.what == option::set_meta_context) allocation_chosen_for_.reset();
  if (shutting_down_) {
    if (option_.what == option::export_name) return close();
    return reply(option_reply::err_shutdown, "The server is shutting down.");
  }
  if (lacks_tls() && option_.what != option::starttls) {
    if (option_.what == option::export_name) return close(protocol_errc::export_name_without_tls);
    return reply(option_reply::err_tls_reqd, "This server requires TLS: begin with STARTTLS.");
  }
  switch (option_.what) {
    case option::export_name:
      return answer_export_name();
    case option::list:
      return answer_list();
    case option::info:
    case option::go:
      return answer_export_query();
    case option::structured_reply:
      return answer_structured_reply();
    case option::extended_headers:
      return answer_extended_headers();
    case option::list_meta_context:
    case option::set_meta_context:
      return answer_context_query();
    case option::starttls:
      return answer_starttls();
    case option::abort:
    case option::peek_export:
      break;
  }
  return refuse_unsupported();
}

handshake::outcome handshake::answer_export_name() {
  // The answer to EXPORT_NAME has no room for what extended headers need, so they rule it out.
  if (agreed_.replies == reply_mode::extended) {
    return close(protocol_errc::export_name_with_extended_headers);
  }
  // Only limits that are smaller than the longest name can bring this about; see begin_option().
  if (state_ == state::skipping) return close(protocol_errc::malformed_export_name);
  const std::string name = text_of(input_);
  if (!is_well_formed(name)) return close(protocol_errc::malformed_export_name);
  const export_info* const chosen = find(name);
  if (chosen == nullptr) return close(protocol_errc::unknown_export);
  const terms agreed = terms_for(*chosen, name);
  encode(grown<export_name_reply_size>(output_),
         export_name_reply{chosen->size, offered_flags(*chosen, agreed)});
  if (!agreed.no_zeroes) output_.resize(output_.size() + export_name_zeroes);
  return enter(agreed);
}

// "NBD_OPT_STARTTLS": nothing that was agreed in clear text is kept. The client's flags are no option, and
// are not said a second time.
handshake::outcome handshake::answer_starttls() {
  if (offers_.tls == tls_policy::off) return refuse_unsupported();
  if (option_.length > 0) return reply(option_reply::err_invalid, "STARTTLS takes no data.");
  if (secured_) return reply(option_reply::err_invalid, "TLS is already in use.");
  secured_ = true;
  agreed_.replies = reply_mode::simple;
  allocation_chosen_for_.reset();
  const outcome answered = reply(option_reply::ack);
  return {step::start_tls, answered.why};
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
    return reply(option_reply::err_too_big, data_is_too_long);
  }
  const auto query = decode_export_query(input_);
  if (!query) {
    return reply(option_reply::err_invalid,
                 "The option's length does not match its name and information requests.");
  }
  if (!is_well_formed(query->name)) return reply(option_reply::err_invalid, name_is_malformed);
  const export_info* const chosen = find(query->name);
  if (chosen == nullptr) return reply(option_reply::err_unknown, unknown_sentence(query->name));
  terms agreed = terms_for(*chosen, query->name);
  agreed.block_sizes_requested = query->wants_block_size;
  describe(agreed, *query);
  const outcome answered = reply(option_reply::ack);
  return option_.what == option::go ? enter(agreed) : answered;
}

// Asking again changes nothing, and may be refused ("Fixed newstyle negotiation").
handshake::outcome handshake::answer_structured_reply() {
  if (!offers_.structured_replies) return refuse_unsupported();
  if (option_.length > 0) return reply(option_reply::err_invalid, "STRUCTURED_REPLY takes no data.");
  if (agreed_.replies == reply_mode::extended) {
    return reply(option_reply::err_ext_header_reqd, "Extended headers were agreed and take precedence.");
  }
  if (agreed_.replies == reply_mode::structured) {
    return reply(option_reply::err_invalid, "Structured replies were already agreed.");
  }
  agreed_.replies = reply_mode::structured;
  return reply(option_reply::ack);
}

handshake::outcome handshake::answer_extended_headers() {
  if (!offers_.extended_headers) return refuse_unsupported();
  if (option_.length > 0) return reply(option_reply::err_invalid, "EXTENDED_HEADERS takes no data.");
  if (agreed_.replies == reply_mode::extended) {
    return reply(option_reply::err_invalid, "Extended headers were already agreed.");
  }
  agreed_.replies = reply_mode::extended;
  return reply(option_reply::ack);
}

// LIST_META_CONTEXT and SET_META_CONTEXT differ in what a query finds, in what no queries mean, and in that
// LIST changes nothing.
handshake::outcome handshake::answer_context_query() {
  if (!offers_.metadata) return refuse_unsupported();
  if (agreed_.replies == reply_mode::simple) {
    return reply(option_reply::err_invalid,
                 "Metadata needs structured replies or extended headers: agree on them first.");
  }
  if (state_ == state::skipping) return reply(option_reply::err_too_big, data_is_too_long);
  const auto asked = decode_context_query(input_);
  if (!asked) {
    return reply(option_reply::err_invalid, "The option's length does not match its name and queries.");
  }
  if (!is_well_formed(asked->name)) return reply(option_reply::err_invalid, name_is_malformed);
  if (asked->queries.size() > limits_.context_queries_max) {
    return reply(option_reply::err_too_big, "There are more queries than this server answers.");
  }
  const bool is_list = option_.what == option::list_meta_context;
  bool found = is_list && asked->queries.empty();
  for (const std::string& query : asked->queries) {
    if (!is_well_formed_query(query)) {
      return reply(option_reply::err_invalid, "A query is not a namespace, a colon and a name, in UTF-8.");
    }
    found = found || finds_allocation(query, option_.what);
  }
  if (find(asked->name) == nullptr) return reply(option_reply::err_unknown, unknown_sentence(asked->name));
  if (found) {
    append_meta_context(output_, option_.what, is_list ? 0 : allocation_context_id, allocation_context);
    if (!is_list) allocation_chosen_for_ = asked->name;
  }
  return reply(option_reply::ack);
}

handshake::outcome handshake::refuse_unsupported() {
  return reply(option_reply::err_unsup, unsupported_sentence(option_.what));
}

handshake::outcome handshake::reply(option_reply what, std::string_view sentence) {
  append_option_reply(output_, option_.what, what, sentence);
  await(state::option_header, option_header_size);
  return {step::send, {}};
}

handshake::outcome handshake::enter(terms agreed) {
  agreed_ = agreed;
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

// The options whose data we look at. All other data is skipped as it comes, however long it is.
bool handshake::reads_data_of(option what) const noexcept {
  if (lacks_tls()) return false;
  const bool asks_for_contexts = what == option::list_meta_context || what == option::set_meta_context;
  return what == option::export_name || what == option::info || what == option::go ||
         (asks_for_contexts && offers_.metadata);
}

// What would be agreed if this export were chosen now, by this name: INFO shows it, GO and EXPORT_NAME do it.
terms handshake::terms_for(const export_info& offered, std::string_view name) const noexcept {
  terms result = agreed_;
  result.chosen = &offered;
  result.allocation_selected = allocation_chosen_for_ == name;
  return result;
}

// The export's size and flags are sent asked or not; everything else only to those who asked for it.
void handshake::describe(const terms& shown, const export_query& asked) {
  const export_info& offered = *shown.chosen;
  append_info(output_, option_.what, info_export{offered.size, offered_flags(offered, shown)});
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
