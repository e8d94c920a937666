#include "server/tls_context.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "server/psk_file.hpp"
#include "server/tls_pem.hpp"

namespace aionbd::server {

namespace {

const std::string certificates_knob = "--tls-certificates";
const std::string psk_knob = "--tls-psk";
const std::string allow_knob = "--tls-allow";

// The order is ours, fastest first: 128 bits are enough, and both ends pay for every further round of AES.
// All of them authenticate what they encrypt and have forward secrecy.
constexpr const char* suites_tls_1_3 =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr const char* suites_tls_1_2 =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-PSK-AES128-GCM-SHA256:DHE-PSK-AES256-GCM-SHA384:ECDHE-PSK-CHACHA20-POLY1305";

constexpr unsigned char session_context[] = "aionbd";

// OpenSSL's: RSA and DH from 2048 bits on, no SHA-1.
constexpr int security_level = 2;

static_assert(psk_user_length_max <= PSK_MAX_IDENTITY_LEN && psk_key_length_max <= PSK_MAX_PSK_LEN);

tls_peer& peer_of(const SSL* session) {
  return *static_cast<tls_peer*>(SSL_get_app_data(session));
}

const tls_context& context_of(const SSL* session) {
  return *static_cast<const tls_context*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(session)));
}

// OpenSSL calls the next two, and its frames know nothing of exceptions. This is short enough not to need
// memory of its own.
constexpr const char* no_memory = "no memory";

// For TLS 1.2 and 1.3 alike. 0 says that there is no such user.
unsigned find_psk(SSL* session, const char* user, unsigned char* key, unsigned length_max) noexcept {
  tls_peer& peer = peer_of(session);
  try {
    const std::string_view found = context_of(session).key_of(user);
    if (found.empty() || found.size() > length_max) {
      peer.refusal = "it named a user whose pre-shared key is not known";
      return 0;
    }
    peer.psk_user = user;
    std::memcpy(key, found.data(), found.size());
    return static_cast<unsigned>(found.size());
  } catch (...) {
    peer.refusal = no_memory;
    return 0;
  }
}

// OpenSSL has judged the chain; here is its end, the client's own certificate, held against --tls-allow.
int judge_certificate(int is_good, X509_STORE_CTX* chain) noexcept {
  const auto* const session =
      static_cast<const SSL*>(X509_STORE_CTX_get_ex_data(chain, SSL_get_ex_data_X509_STORE_CTX_idx()));
  tls_peer& peer = peer_of(session);
  try {
    if (is_good == 0 && X509_STORE_CTX_get_error(chain) == X509_V_ERR_CRL_HAS_EXPIRED) {
      peer.refusal = "ca-crl.pem has expired, and who is revoked is not known";
    }
    if (is_good == 0 || X509_STORE_CTX_get_error_depth(chain) != 0) return is_good;
    const X509& shown = *X509_STORE_CTX_get_current_cert(chain);
    if (context_of(session).allows(names_of(shown))) return 1;
    peer.refusal = fmt::format("--tls-allow has no pattern for '{}'", subject_of(shown));
    X509_STORE_CTX_set_error(chain, X509_V_ERR_APPLICATION_VERIFICATION);
  } catch (...) {
    peer.refusal = no_memory;
    X509_STORE_CTX_set_error(chain, X509_V_ERR_OUT_OF_MEM);
  }
  return 0;
}

bool is_signed_by(const X509_CRL& list, const X509& authority) {
  return X509_NAME_cmp(X509_get_subject_name(&authority), X509_CRL_get_issuer(&list)) == 0 &&
         X509_CRL_verify(const_cast<X509_CRL*>(&list), X509_get0_pubkey(&authority)) == 1;
}

// OpenSSL turns everybody away when a list is out of date or signed by nobody it knows, so that is better
// said now, and so is an authority without a list, whose clients it turns away. A list that expires later
// does so with its own: nobody knows any more who is revoked. Returns what describe() says of them.
std::string use_revocations(X509_STORE* trusted, const std::vector<certificate>& authorities,
                            const std::string& path, const std::string& content,
                            std::vector<std::string>& warnings) {
  const ASN1_TIME* soonest = nullptr;
  std::vector<bool> have_list(authorities.size());
  const auto lists = read_revocations(certificates_knob, path, content);
  for (const auto& each : lists) {
    bool is_known = false;
    for (std::size_t at = 0; at < authorities.size(); ++at) {
      if (is_signed_by(*each, *authorities[at])) have_list[at] = is_known = true;
    }
    ERR_clear_error();
    if (!is_known) {
      throw tls_error(
          fmt::format("{}: {} is not signed by an authority in ca-cert.pem", certificates_knob, path));
    }
    if (const std::string why = why_not_valid_now(*each); !why.empty()) {
      throw tls_error(fmt::format("{}: {} {}; clients need a new one", certificates_knob, path, why));
    }
    const ASN1_TIME* const until = X509_CRL_get0_nextUpdate(each.get());
    if (until != nullptr && (soonest == nullptr || ASN1_TIME_compare(until, soonest) < 0)) soonest = until;
    X509_STORE_add_crl(trusted, each.get());
  }
  for (std::size_t at = 0; at < authorities.size(); ++at) {
    if (have_list[at]) continue;
    warnings.push_back(fmt::format("{} has no list of '{}': clients whose certificates it signed are refused",
                                   path, subject_of(*authorities[at])));
  }
  X509_STORE_set_flags(trusted, X509_V_FLAG_CRL_CHECK);
  if (soonest == nullptr) return "not revoked by ca-crl.pem";
  return fmt::format("not revoked by ca-crl.pem, which is good until {}", date_of(soonest));
}

// Once a client is known, what is left of the handshake's messages is KeyUpdate: they cost us more than the
// client, so they are counted.
void count_messages(int is_ours, int, int kind, const void*, std::size_t, SSL* session, void*) {
  if (is_ours != 0 || kind != SSL3_RT_HANDSHAKE) return;
  tls_peer& peer = peer_of(session);
  if (peer.is_known) ++peer.unpaid_messages;
}

}  // namespace

void free_session::operator()(SSL* session) const noexcept {
  SSL_free(session);
}

tls_context::tls_context(const tls_settings& settings, file_keeper* files)
    : settings_(settings), files_(files), context_(SSL_CTX_new(TLS_server_method()), SSL_CTX_free) {
  SSL_CTX* const context = context_.get();
  if (context == nullptr) throw std::bad_alloc();
  SSL_CTX_set_app_data(context, this);
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  // Keys and primes of 112 bits' worth, whatever the distribution or its openssl.cnf would put up with.
  SSL_CTX_set_security_level(context, security_level);
  SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_COMPRESSION |
                                   SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
  SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Nothing to resume: connections are few and long, and a session that is kept is a secret that is kept.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 0);
  // OpenSSL takes a pre-shared key for a kind of session, and wants to know whose.
  SSL_CTX_set_session_id_context(context, session_context, sizeof session_context);
  SSL_CTX_set_msg_callback(context, count_messages);
  if (SSL_CTX_set_ciphersuites(context, suites_tls_1_3) != 1 ||
      SSL_CTX_set_cipher_list(context, suites_tls_1_2) != 1) {
    throw tls_error(fmt::format("--tls: OpenSSL has none of the ciphers: {}", take_tls_reason()));
  }
  if (!settings.certificates.empty()) use_certificates(settings.certificates);
  if (!settings.psk_file.empty()) use_pre_shared_keys(settings.psk_file);
}

tls_context::~tls_context() {
  for (auto& [user, key] : psk_) forget(key);
}

std::optional<std::string> tls_context::content_of(const std::string& knob, const std::string& path) const {
  return server::content_of(knob, path, files_);
}

std::string tls_context::needed_content_of(const std::string& knob, const std::string& path) const {
  return server::needed_content_of(knob, path, files_);
}

void tls_context::use_certificates(const std::string& folder) {
  const std::string chain_path = folder + "/server-cert.pem";
  const std::string key_path = folder + "/server-key.pem";
  const auto chain =
      read_certificates(certificates_knob, chain_path, needed_content_of(certificates_knob, chain_path));
  const secret key_text(needed_content_of(certificates_knob, key_path));
  const auto key = read_key(certificates_knob, key_path, key_text.get());
  if (is_readable_by_others(key_path)) {
    warnings_.push_back(fmt::format("every user of this machine can read {}; chmod 600 it", key_path));
  }
  // A client needs all of them on its way to the authority.
  for (const auto& each : chain) {
    const std::string why = why_not_valid_now(*each);
    if (why.empty()) continue;
    const std::string which = each == chain.front() ? "" : fmt::format(": '{}' in it", subject_of(*each));
    throw tls_error(fmt::format("{}: {}{} {}", certificates_knob, chain_path, which, why));
  }
  X509* const own = chain.front().get();
  if (X509_check_private_key(own, key.get()) != 1) {
    ERR_clear_error();
    throw tls_error(fmt::format("{}: {} is not the key of {}", certificates_knob, key_path, chain_path));
  }
  bool used = SSL_CTX_use_certificate(context_.get(), own) == 1 &&
              SSL_CTX_use_PrivateKey(context_.get(), key.get()) == 1;
  for (std::size_t next = 1; used && next < chain.size(); ++next) {
    used = SSL_CTX_add1_chain_cert(context_.get(), chain[next].get()) == 1;
  }
  if (!used) {
    throw tls_error(fmt::format("{}: {} is of no use: {}", certificates_knob, chain_path, take_tls_reason()));
  }
  use_clients_authority(folder);
}

// Where there is an authority, it decides who may come in.
void tls_context::use_clients_authority(const std::string& folder) {
  const std::string path = folder + "/ca-cert.pem";
  const auto content = content_of(certificates_knob, path);
  if (!content) {
    if (settings_.allowed_names.empty()) return;
    throw tls_error(fmt::format("{}: there is no {} to tell whose names are true", allow_knob, path));
  }
  const auto authorities = read_certificates(certificates_knob, path, *content);
  X509_STORE* const trusted = SSL_CTX_get_cert_store(context_.get());
  // Who stands there is trusted, signed by somebody else or not, as GnuTLS has it.
  X509_STORE_set_flags(trusted, X509_V_FLAG_PARTIAL_CHAIN);
  std::string why;
  bool any_is_valid = false;
  for (const auto& each : authorities) {
    X509_STORE_add_cert(trusted, each.get());
    SSL_CTX_add_client_CA(context_.get(), each.get());
    why = why_not_valid_now(*each);
    any_is_valid = any_is_valid || why.empty();
  }
  if (!any_is_valid) throw tls_error(fmt::format("{}: {} {}", certificates_knob, path, why));

  const std::string revoked_path = folder + "/ca-crl.pem";
  if (const auto revoked = content_of(certificates_knob, revoked_path)) {
    revocations_ = use_revocations(trusted, authorities, revoked_path, *revoked, warnings_);
  }
  SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, judge_certificate);
  asks_for_certificates_ = true;
}

void tls_context::use_pre_shared_keys(const std::string& path) {
  try {
    const secret text(needed_content_of(psk_knob, path));
    auto [by_user, warnings] = parse_pre_shared_keys(path, text.get());
    psk_ = std::move(by_user);
    warnings_.insert(warnings_.end(), warnings.begin(), warnings.end());
  } catch (const tls_error&) {
    throw;
  } catch (const std::runtime_error& wrong) {
    throw tls_error(fmt::format("{}: {}", psk_knob, wrong.what()));
  }
  if (is_readable_by_others(path)) {
    warnings_.push_back(fmt::format("every user of this machine can read {}; chmod 600 it", path));
  }
  SSL_CTX_set_psk_server_callback(context_.get(), find_psk);
  SSL_CTX_set_dh_auto(context_.get(), 1);
}

tls_session tls_context::new_session(tls_peer& peer) const {
  tls_session session(SSL_new(context_.get()));
  if (!session) throw std::bad_alloc();
  SSL_set_app_data(session.get(), &peer);
  SSL_set_accept_state(session.get());
  return session;
}

std::string_view tls_context::key_of(std::string_view user) const {
  const auto found = psk_.find(user);
  return found == psk_.end() ? std::string_view() : found->second;
}

bool tls_context::allows(const std::vector<certificate_name>& names) const {
  return settings_.allowed_names.empty() || any_matches(settings_.allowed_names, names);
}

std::string tls_context::describe() const {
  std::string text;
  if (!settings_.certificates.empty()) {
    text = fmt::format("certificates of {}, clients {}{}{}", settings_.certificates,
                       !asks_for_certificates_           ? "need none, as there is no ca-cert.pem"
                       : settings_.allowed_names.empty() ? "must show one of its authority"
                                                         : "must show one that --tls-allow names",
                       revocations_.empty() ? "" : ", ", revocations_);
  }
  if (psk_.empty()) return text;
  return fmt::format("{}{}pre-shared keys of {} user{}", text, text.empty() ? "" : "; ", psk_.size(),
                     psk_.size() == 1 ? "" : "s");
}

std::vector<std::string> files_of(const tls_settings& settings) {
  std::vector<std::string> paths;
  if (!settings.psk_file.empty()) paths.push_back(settings.psk_file);
  if (settings.certificates.empty()) return paths;
  for (const char* const name : {"server-cert.pem", "server-key.pem", "ca-cert.pem", "ca-crl.pem"}) {
    paths.push_back(settings.certificates + "/" + name);
  }
  return paths;
}

tls_keys::tls_keys(const tls_settings& settings, file_keeper* files) : settings_(settings), files_(files) {
  for (const auto& path : files_of(settings)) {
    if (files != nullptr) files->grant_reading(path);
  }
  current_ = std::make_shared<const tls_context>(settings_, files_);
}

std::shared_ptr<const tls_context> tls_keys::current() const {
  const std::lock_guard guard(changing_);
  return current_;
}

void tls_keys::read_again() {
  auto next = std::make_shared<const tls_context>(settings_, files_);
  // A file that has gone must not open the door to everybody, nor to those who had been shown it.
  const auto before = current();
  const auto refuse = [&](const char* file, const char* what) {
    throw tls_error(fmt::format("{}: there is no {}/{} any more, and {}", certificates_knob,
                                settings_.certificates, file, what));
  };
  if (before->asks_for_certificates() && !next->asks_for_certificates()) {
    refuse("ca-cert.pem", "clients still need a certificate");
  }
  if (before->checks_revocations() && !next->checks_revocations()) {
    refuse("ca-crl.pem", "revoked clients are still kept out");
  }
  const std::lock_guard guard(changing_);
  current_ = std::move(next);
}

}  // namespace aionbd::server
