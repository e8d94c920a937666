// What a client's certificate calls it, and whether a list of patterns knows it by one of these names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

struct x509_st;

namespace aionbd::server {

// The subject as RFC 2253 writes it ("CN=alice,O=Example"), its common names alone ("alice"), and every
// alternative name that is a DNS name, an e-mail address, a URI or an IP address. Names with a NUL byte,
// which look like another to some programs, are left out.
[[nodiscard]] std::vector<std::string> names_of(const x509_st& of);

// The subject, for people and logs: no control characters.
[[nodiscard]] std::string subject_of(const x509_st& of);

// Whether one of the names matches one of the patterns as a whole: * and ? stand for any characters, [...]
// for one of several, \ takes the meaning off the next. Upper and lower case differ.
[[nodiscard]] bool any_matches(const std::vector<std::string>& patterns,
                               const std::vector<std::string>& names);

}  // namespace aionbd::server
