#include "server/tls_authority.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace aionbd::server {

namespace {

const std::string knob = "keygen";

using extension = std::unique_ptr<X509_EXTENSION, freed_by<X509_EXTENSION_free>>;

constexpr std::size_t serial_bytes = 16;
constexpr long clock_skew_s = 3600;  // clients whose clock is late

// OpenSSL fails here only for want of memory or of random numbers.
void demand(bool worked) {
  if (!worked) throw tls_error(fmt::format("{}: OpenSSL failed: {}", knob, take_tls_reason()));
}

private_key new_key() {
  private_key made(EVP_EC_gen("P-256"));
  demand(made != nullptr);
  return made;
}

std::string pem_of(X509* one) {
  const owned_bio out = new_text();
  demand(PEM_write_bio_X509(out.get(), one) == 1);
  return text_of(out);
}

std::string pem_of(EVP_PKEY* key) {
  const owned_bio out = new_text();
  demand(PEM_write_bio_PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1);
  return text_of(out);
}

void extend(X509& one, X509& issuer, int what, const std::string& value) {
  X509V3_CTX about{};
  X509V3_set_ctx_nodb(&about);
  X509V3_set_ctx(&about, &issuer, &one, nullptr, nullptr, 0);
  const extension made(X509V3_EXT_conf_nid(nullptr, &about, what, value.c_str()));
  demand(made && X509_add_ext(&one, made.get(), -1) == 1);
}

// Everything but what says its purpose, and the signature.
certificate blank(const std::string& common_name, EVP_PKEY& key, int days) {
  certificate made(X509_new());
  demand(made != nullptr);
  X509& one = *made;
  const std::string serial = "\1" + random_bytes(serial_bytes);  // positive, and the first byte is not 0
  const std::unique_ptr<BIGNUM, freed_by<BN_free>> number(BN_bin2bn(
      reinterpret_cast<const unsigned char*>(serial.data()), static_cast<int>(serial.size()), nullptr));
  X509_NAME* const name = X509_get_subject_name(&one);
  // The alternative names have it whole.
  const int shown = static_cast<int>(std::min<std::size_t>(common_name.size(), ub_common_name));
  demand(number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(&one)) != nullptr &&
         X509_set_version(&one, X509_VERSION_3) == 1 &&
         X509_gmtime_adj(X509_getm_notBefore(&one), -clock_skew_s) != nullptr &&
         X509_time_adj_ex(X509_getm_notAfter(&one), days, 0, nullptr) != nullptr &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(common_name.c_str()), shown, -1,
                                    0) == 1 &&
         X509_set_pubkey(&one, &key) == 1);
  return made;
}

void make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return;
  throw tls_error(fmt::format("{}: cannot make {}: {}", knob, path, ::strerror(errno)));
}

void demand_absence(const std::string& path) {
  struct stat facts {};
  if (::lstat(path.c_str(), &facts) != 0 && errno == ENOENT) return;
  throw tls_error(fmt::format("{}: {} is there already; nothing is overwritten", knob, path));
}

bool is_address(const std::string& text) {
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  return ::inet_pton(AF_INET, text.c_str(), bytes.data()) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1;
}

}  // namespace

tls_authority::tls_authority(std::string folder, int days) : folder_(std::move(folder)), days_(days) {
  const std::string certificate_path = folder_ + "/ca-cert.pem";
  const std::string key_path = folder_ + "/ca-key.pem";
  if (const auto known = content_of(knob, key_path)) {
    key_ = read_key(knob, key_path, *known);
    auto found = read_certificates(knob, certificate_path, needed_content_of(knob, certificate_path));
    certificate_ = std::move(found.front());
    if (const std::string why = why_not_valid_now(*certificate_); !why.empty()) {
      throw tls_error(fmt::format("{}: {} {}", knob, certificate_path, why));
    }
    if (X509_check_private_key(certificate_.get(), key_.get()) == 1) return;
    throw tls_error(fmt::format("{}: {} is not the key of {}", knob, key_path, certificate_path));
  }
  make_folder(folder_);
  demand_absence(certificate_path);
  is_new_ = true;
  key_ = new_key();
  certificate_ = blank("aionbd authority of " + own_name(), *key_, days_);
  X509& own = *certificate_;
  demand(X509_set_issuer_name(&own, X509_get_subject_name(&own)) == 1);
  extend(own, own, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  extend(own, own, NID_key_usage, "critical,keyCertSign,cRLSign");
  extend(own, own, NID_subject_key_identifier, "hash");
  demand(X509_sign(&own, key_.get(), EVP_sha256()) != 0);
  write_new_file(key_path, pem_of(key_.get()));
  write_new_file(certificate_path, pem_of(&own), true);
}

void tls_authority::make_server(const std::vector<std::string>& hosts) const {
  std::string names;
  for (const auto& each : hosts) {
    names += fmt::format("{}{}:{}", names.empty() ? "" : ",", is_address(each) ? "IP" : "DNS", each);
  }
  issue(server_folder(), "server", hosts.front(), names);
}

void tls_authority::make_client(const std::string& name) const {
  make_folder(folder_ + "/clients");
  issue(client_folder(name), "client", name, "");
}

void tls_authority::issue(const std::string& into, const std::string& role, const std::string& common_name,
                          const std::string& other_names) const {
  const std::string certificate_path = fmt::format("{}/{}-cert.pem", into, role);
  const std::string key_path = fmt::format("{}/{}-key.pem", into, role);
  const std::string authority_path = into + "/ca-cert.pem";
  make_folder(into);
  for (const auto& each : {certificate_path, key_path, authority_path}) demand_absence(each);
  const private_key key = new_key();
  const certificate made = blank(common_name, *key, days_);
  X509 &one = *made, &issuer = *certificate_;
  demand(X509_set_issuer_name(&one, X509_get_subject_name(&issuer)) == 1);
  extend(one, issuer, NID_basic_constraints, "critical,CA:FALSE");
  extend(one, issuer, NID_key_usage, "critical,digitalSignature");
  extend(one, issuer, NID_ext_key_usage, role == "server" ? "serverAuth" : "clientAuth");
  extend(one, issuer, NID_subject_key_identifier, "hash");
  extend(one, issuer, NID_authority_key_identifier, "keyid:always");
  if (!other_names.empty()) extend(one, issuer, NID_subject_alt_name, other_names);
  demand(X509_sign(&one, key_.get(), EVP_sha256()) != 0);
  write_new_file(key_path, pem_of(key.get()));
  write_new_file(certificate_path, pem_of(&one), true);
  write_new_file(authority_path, pem_of(&issuer), true);
}

bool is_host(std::string_view text) noexcept {
  const auto fits = [](char each) {
    return std::isalnum(static_cast<unsigned char>(each)) != 0 || each == '.' || each == '-' || each == ':' ||
           each == '_' || each == '*';
  };
  return !text.empty() && text.size() <= 253 && std::all_of(text.begin(), text.end(), fits);
}

std::string own_name() {
  std::array<char, 256> name{};
  const bool known = ::gethostname(name.data(), name.size() - 1) == 0 && is_host(name.data());
  return known ? name.data() : "localhost";
}

bool is_client(std::string_view text) noexcept {
  const auto fits = [](char each) {
    return std::isalnum(static_cast<unsigned char>(each)) != 0 || each == '.' || each == '-' || each == '_' ||
           each == '@';
  };
  // 64 is what a common name may have.
  return !text.empty() && text.size() <= 64 && text.front() != '.' &&
         std::all_of(text.begin(), text.end(), fits);
}

void write_new_file(const std::string& path, std::string_view content, bool open) {
  const int fd =
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, open ? 0644 : 0600);
  if (fd < 0 && errno == EEXIST) demand_absence(path);
  bool written = fd >= 0;
  while (written && !content.empty()) {
    const ssize_t count = ::write(fd, content.data(), content.size());
    written = count > 0;
    if (written) content.remove_prefix(static_cast<std::size_t>(count));
  }
  written = written && ::fsync(fd) == 0;
  const int failure = errno;
  if (fd >= 0) ::close(fd);
  if (!written) throw tls_error(fmt::format("{}: cannot write {}: {}", knob, path, ::strerror(failure)));
}

std::string random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  demand(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) == 1);
  return bytes;
}

}  // namespace aionbd::server
