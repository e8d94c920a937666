// The greeting and the option haggling of one connection: bytes in, an action out.
// It does no I/O and keeps no time: the connection that owns it reads, sends, and enforces the deadline. One
// thread at a time. What of the specification it speaks, and every limit, stands in protocol/README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "protocol/constants.hpp"
#include "protocol/messages.hpp"
#include "protocol/terms.hpp"

namespace aionbd::protocol {

// What one client may ask of one handshake. Past options_max or total_bytes_max the connection is dropped; an
// option longer than option_length_max is read without being kept, and answered ERR_TOO_BIG if its data was
// needed.
struct handshake_limits {
  // Tools that list exports ask two or three options for each of them.
  std::uint32_t options_max = 1024;
  std::uint32_t option_length_max = 16U << 10U;
  // Headers and data of all options together.
  std::uint64_t total_bytes_max = 1U << 20U;
  // A long LIST is answered in several sends, each about this long.
  std::size_t list_bytes_per_send = 64U << 10U;
  // Queries in one LIST_META_CONTEXT or SET_META_CONTEXT; more are answered ERR_TOO_BIG.
  std::uint32_t context_queries_max = 1024;
};

// What the transmission phase behind this handshake can do, and what becomes of STARTTLS. An option that asks
// for anything else is answered ERR_UNSUP, like an unknown one. Metadata is of use only together with one of
// the two before and behind it.
struct handshake_offers {
  bool structured_replies = false;
  bool metadata = false;
  bool extended_headers = false;
  tls_policy tls = tls_policy::off;
};

class handshake {
 public:
  enum class step {
    need_bytes,          // All of `received` was used; call again with more.
    send,                // Send output(), then call again with what was not consumed.
    start_tls,           // Send output(), then shake hands by TLS; call again with what comes through it.
    enter_transmission,  // Send output() if it is not empty; what was not consumed are requests.
    close,               // Send output() if it is not empty, then close.
  };

  struct action {
    step what = step::need_bytes;
    std::size_t consumed = 0;  // Bytes of `received` that were used up.
    std::error_code why;       // Set when the peer broke a rule or a limit; empty for an orderly end.
  };

  // `exports` must outlive the handshake and the terms it agrees.
  explicit handshake(std::span<const export_info> exports, handshake_limits limits = {},
                     handshake_offers offers = {});

  // The first call, with nothing received, returns the greeting. At most one option is answered per call, so
  // that output stays bounded. After enter_transmission or close there is nothing more to do; the same step
  // is returned.
  [[nodiscard]] action resume(std::span<const std::byte> received);

  // Valid until the next resume().
  [[nodiscard]] std::span<const std::byte> output() const noexcept { return output_; }

  // Complete once enter_transmission was returned.
  [[nodiscard]] const terms& agreed() const noexcept { return agreed_; }

  // From now on every option is answered ERR_SHUTDOWN, except ABORT; EXPORT_NAME, which cannot be, ends the
  // connection.
  void shut_down() noexcept { shutting_down_ = true; }

 private:
  enum class state {
    greeting,       // Nothing was sent yet.
    client_flags,   // Waiting for the client's 32 bits of flags.
    option_header,  // Between options: waiting for the next one's 16 bytes.
    option_data,    // Collecting the data of option_ in input_.
    skipping,       // Reading the data of option_ without keeping it: not needed, or too long.
    listing,        // In the middle of the answer to LIST, with exports_[listed_] up next; no bytes are read.
    agreed,         // Over: the transmission phase has begun.
    closed,         // Over: the connection ends.
  };

  struct outcome {
    step what = step::need_bytes;
    std::error_code why;
  };

  void await(state next, std::uint32_t length);
  std::size_t gather(std::span<const std::byte> received);
  outcome advance();
  outcome accept_client_flags();
  outcome begin_option();
  outcome answer_option();
  outcome answer_starttls();
  outcome answer_export_name();
  outcome answer_list();
  outcome continue_list();
  outcome answer_export_query();
  outcome answer_structured_reply();
  outcome answer_extended_headers();
  outcome answer_context_query();
  outcome refuse_unsupported();
  outcome reply(option_reply what, std::string_view sentence = {});
  outcome enter(terms agreed);
  outcome close(std::error_code why = {});
  const export_info* find(std::string_view name) const noexcept;
  bool lacks_tls() const noexcept { return offers_.tls == tls_policy::required && !secured_; }
  bool reads_data_of(option what) const noexcept;
  terms terms_for(const export_info& offered, std::string_view name) const noexcept;
  void describe(const terms& shown, const export_query& asked);

  std::span<const export_info> exports_;
  handshake_limits limits_;
  handshake_offers offers_;
  state state_ = state::greeting;
  terms agreed_;
  bool fixed_newstyle_ = false;
  bool secured_ = false;  // STARTTLS was answered: what is received now came through TLS.
  bool shutting_down_ = false;
  // The export name for which the last SET_META_CONTEXT chose base:allocation; it holds for no other name.
  std::optional<std::string> allocation_chosen_for_;

  option_header option_;  // The one being read or answered.
  std::uint32_t options_seen_ = 0;
  std::uint64_t bytes_left_ = 0;  // Of limits_.total_bytes_max.
  std::uint32_t awaited_ = 0;     // Bytes that the present state still lacks.
  std::size_t listed_ = 0;
  // What the present state has received. It grows with what arrived, never with what is announced.
  std::vector<std::byte> input_;
  std::vector<std::byte> output_;
};

}  // namespace aionbd::protocol
