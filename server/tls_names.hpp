// What a client's certificate calls it, and whether a list of patterns knows it by one of these names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

struct x509_st;

namespace aionbd::server {

enum class name_kind { subject, common, dns, address, email, uri };

struct certificate_name {
  name_kind kind;
  std::string text;

  friend bool operator==(const certificate_name&, const certificate_name&) = default;
};

// The subject as RFC 2253 writes it ("CN=alice,O=Example"), its common names alone ("alice"), and every
// alternative name that is a DNS name, an e-mail address, a URI or an IP address. Names with a NUL byte,
// which look like another to some programs, are left out.
[[nodiscard]] std::vector<certificate_name> names_of(const x509_st& of);

// The subject, for people and logs: no control characters.
[[nodiscard]] std::string subject_of(const x509_st& of);

// Whether one of the names matches one of the patterns as a whole. A pattern with = is for subjects and for
// nothing else; any other is for common names, DNS names and addresses, and if it has @ or : for e-mail
// addresses and URIs too. * and ? stand for any characters but those that part a name: @ / and the comma.
// [...] stands for one of several, \ takes the meaning off the next. Upper and lower case differ.
[[nodiscard]] bool any_matches(const std::vector<std::string>& patterns,
                               const std::vector<certificate_name>& names);

}  // namespace aionbd::server
