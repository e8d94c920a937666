#include "server/tls_names.hpp"

#include <arpa/inet.h>
#include <fnmatch.h>
#include <openssl/bio.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "server/tls_pem.hpp"

namespace aionbd::server {

namespace {

using memory = std::unique_ptr<BIO, freed_by<BIO_free_all>>;
using alternative_names = std::unique_ptr<GENERAL_NAMES, freed_by<GENERAL_NAMES_free>>;

std::optional<std::string> without_nul(std::string text) {
  if (text.empty() || text.find('\0') != text.npos) return std::nullopt;
  return text;
}

std::optional<std::string> text_of(const ASN1_STRING* value) {
  unsigned char* utf8 = nullptr;
  const int length = ASN1_STRING_to_UTF8(&utf8, value);
  if (length < 0) return std::nullopt;
  const std::string text(utf8, utf8 + length);
  OPENSSL_free(utf8);
  return without_nul(text);
}

std::optional<std::string> address_of(const ASN1_OCTET_STRING* value) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const int length = ASN1_STRING_length(value);
  if (length != 4 && length != 16) return std::nullopt;
  ::inet_ntop(length == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(value), text.data(), text.size());
  return std::string(text.data());
}

std::optional<std::string> name_in(const GENERAL_NAME* name) {
  int kind = 0;
  const void* const value = GENERAL_NAME_get0_value(name, &kind);
  switch (kind) {
    case GEN_DNS:
    case GEN_EMAIL:
    case GEN_URI:
      return text_of(static_cast<const ASN1_STRING*>(value));
    case GEN_IPADD:
      return address_of(static_cast<const ASN1_OCTET_STRING*>(value));
    default:
      return std::nullopt;
  }
}

void add(std::vector<std::string>& names, std::optional<std::string> name) {
  if (name) names.push_back(*std::move(name));
}

}  // namespace

std::string subject_of(const X509& of) {
  const memory out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), X509_get_subject_name(&of), 0, XN_FLAG_RFC2253);
  char* text = nullptr;
  const long length = BIO_get_mem_data(out.get(), &text);
  return {text, static_cast<std::size_t>(length > 0 ? length : 0)};
}

std::vector<std::string> names_of(const X509& of) {
  std::vector<std::string> names;
  add(names, without_nul(subject_of(of)));
  const X509_NAME* const subject = X509_get_subject_name(&of);
  for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;) {
    add(names, text_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))));
  }
  const alternative_names others(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&of, NID_subject_alt_name, nullptr, nullptr)));
  for (int at = 0; at < (others ? sk_GENERAL_NAME_num(others.get()) : 0); ++at) {
    add(names, name_in(sk_GENERAL_NAME_value(others.get(), at)));
  }
  return names;
}

bool any_matches(const std::vector<std::string>& patterns, const std::vector<std::string>& names) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
    });
  });
}

}  // namespace aionbd::server
