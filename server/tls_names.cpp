#include "server/tls_names.hpp"

#include <arpa/inet.h>
#include <fnmatch.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "server/tls_pem.hpp"

namespace aionbd::server {

namespace {

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

void add(std::vector<certificate_name>& names, name_kind kind, std::optional<std::string> text) {
  if (text) names.push_back({kind, *std::move(text)});
}

void add(std::vector<certificate_name>& names, const GENERAL_NAME* other) {
  int kind = 0;
  const void* const value = GENERAL_NAME_get0_value(other, &kind);
  const auto* const text = static_cast<const ASN1_STRING*>(value);
  if (kind == GEN_DNS) add(names, name_kind::dns, text_of(text));
  if (kind == GEN_EMAIL) add(names, name_kind::email, text_of(text));
  if (kind == GEN_URI) add(names, name_kind::uri, text_of(text));
  if (kind == GEN_IPADD) {
    add(names, name_kind::address, address_of(static_cast<const ASN1_OCTET_STRING*>(value)));
  }
}

// Where a name has parts that are to be told from each other.
bool is_separator(char sign) {
  return sign == '@' || sign == '/' || sign == ',';
}

struct parts_of_name {
  std::vector<std::string> parts{""};
  std::string separators{};  // a comma that belongs to a value of a subject is told as '\\'

  void separate(char by) {
    separators += by;
    parts.emplace_back();
  }
};

// A backslash makes the next sign of a pattern an ordinary one. In a subject it stands before signs that
// belong to a value and part nothing, a comma above all: "CN=a\,O=b" has one value, "CN=a,O=b" has two.
parts_of_name parts_of(const std::string& text, bool is_pattern, bool is_subject) {
  parts_of_name result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const bool is_escaped = text[at] == '\\' && at + 1 < text.size() && (is_pattern || is_subject);
    const char sign = is_escaped ? text[++at] : text[at];
    if (is_escaped && is_subject && sign == ',') {
      result.separate('\\');
    } else if (is_separator(sign)) {
      result.separate(sign);
    } else {
      if (is_escaped) result.parts.back() += '\\';
      result.parts.back() += sign;
    }
  }
  return result;
}

bool is_for(const std::string& pattern, name_kind kind) {
  const bool is_of_subject = pattern.find('=') != pattern.npos;
  if (kind == name_kind::subject || is_of_subject) return kind == name_kind::subject && is_of_subject;
  if (kind != name_kind::email && kind != name_kind::uri) return true;
  return pattern.find_first_of("@:") != pattern.npos;
}

bool matches(const std::string& pattern, const certificate_name& name) {
  if (!is_for(pattern, name.kind)) return false;
  const bool is_subject = name.kind == name_kind::subject;
  const auto wanted = parts_of(pattern, true, is_subject), found = parts_of(name.text, false, is_subject);
  return wanted.separators == found.separators &&
         std::equal(wanted.parts.begin(), wanted.parts.end(), found.parts.begin(),
                    [](const auto& of_pattern, const auto& of_name) {
                      return ::fnmatch(of_pattern.c_str(), of_name.c_str(), 0) == 0;
                    });
}

}  // namespace

std::string subject_of(const X509& of) {
  const owned_bio out = new_text();
  X509_NAME_print_ex(out.get(), X509_get_subject_name(&of), 0, XN_FLAG_RFC2253);
  return text_of(out);
}

std::vector<certificate_name> names_of(const X509& of) {
  std::vector<certificate_name> names;
  add(names, name_kind::subject, without_nul(subject_of(of)));
  const X509_NAME* const subject = X509_get_subject_name(&of);
  for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;) {
    add(names, name_kind::common, text_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))));
  }
  const alternative_names others(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&of, NID_subject_alt_name, nullptr, nullptr)));
  for (int at = 0; at < (others ? sk_GENERAL_NAME_num(others.get()) : 0); ++at) {
    add(names, sk_GENERAL_NAME_value(others.get(), at));
  }
  return names;
}

bool any_matches(const std::vector<std::string>& patterns, const std::vector<certificate_name>& names) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return std::any_of(names.begin(), names.end(),
                       [&](const certificate_name& name) { return matches(pattern, name); });
  });
}

}  // namespace aionbd::server
