// The keys by which clients come in over TLS: certificates, pre-shared keys, or both; and the way to read
// them again while connections go on with the old ones. OpenSSL is behind it, and in no header of ours.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/config.hpp"
#include "server/file_keeper.hpp"
#include "server/tls_error.hpp"
#include "server/tls_names.hpp"

struct ssl_st;
struct ssl_ctx_st;

namespace aionbd::server {

// What OpenSSL's callbacks tell of a client while it shakes hands. One for each connection.
struct tls_peer {
  std::string psk_user;  // whose pre-shared key it named last, which proves nothing
  std::string refusal;   // why we turned it away, where OpenSSL would not know a better word
  bool is_known = false;
  unsigned unpaid_messages = 0;  // handshake messages, once it is known, that no data has paid for
};

struct free_session {
  void operator()(ssl_st* session) const noexcept;
};
using tls_session = std::unique_ptr<ssl_st, free_session>;

// One set of keys, unchanged for life; connections share it. Any thread.
class tls_context {
 public:
  // Reads the files, through `files` if there is such a keeper; see files_of(). Throws tls_error.
  explicit tls_context(const tls_settings& settings, file_keeper* files = nullptr);
  tls_context(const tls_context&) = delete;
  tls_context& operator=(const tls_context&) = delete;
  ~tls_context();

  // For one connection; `peer` must outlive it. Throws std::bad_alloc.
  [[nodiscard]] tls_session new_session(tls_peer& peer) const;

  bool asks_for_certificates() const { return asks_for_certificates_; }
  // Whether clients without any key come in, pre-shared keys or not: there is no authority to ask one of
  // them.
  bool lets_anybody_in() const { return !settings_.certificates.empty() && !asks_for_certificates_; }
  // Whether a client's certificate may have been revoked.
  bool checks_revocations() const { return !revocations_.empty(); }
  // Of files that are served all the same: sentences for people.
  const std::vector<std::string>& warnings() const { return warnings_; }
  // "certificates of /etc/pki/aionbd, clients must show one; pre-shared keys of 2 users"
  std::string describe() const;

  // The key of a user; nothing when there is none.
  std::string_view key_of(std::string_view user) const;
  // Whether --tls-allow lets a client with one of these names in.
  bool allows(const std::vector<certificate_name>& names) const;

 private:
  std::optional<std::string> content_of(const std::string& knob, const std::string& path) const;
  std::string needed_content_of(const std::string& knob, const std::string& path) const;
  void use_certificates(const std::string& folder);
  void use_clients_authority(const std::string& folder);
  void use_pre_shared_keys(const std::string& path);

  const tls_settings settings_;
  file_keeper* const files_;
  std::unique_ptr<ssl_ctx_st, void (*)(ssl_ctx_st*)> context_;
  std::map<std::string, std::string, std::less<>> psk_;
  std::vector<std::string> warnings_;
  bool asks_for_certificates_ = false;
  std::string revocations_;  // what describe() says of them; empty: they are not checked
};

// The keys of the moment. Any thread.
class tls_keys {
 public:
  // Throws tls_error. With `files`, which outlives this, they are read through it, now and later: it is told
  // which they are. Before it is started.
  explicit tls_keys(const tls_settings& settings, file_keeper* files = nullptr);

  protocol::tls_policy policy() const { return settings_.policy; }
  std::shared_ptr<const tls_context> current() const;
  // From now on new connections get what the files say now; those that are there keep what they have. Throws
  // tls_error, and then nothing has changed.
  void read_again();

 private:
  const tls_settings settings_;
  file_keeper* const files_;
  mutable std::mutex changing_;  // taken once for each STARTTLS
  std::shared_ptr<const tls_context> current_;
};

// Every file that these settings may lead to.
[[nodiscard]] std::vector<std::string> files_of(const tls_settings& settings);

}  // namespace aionbd::server
