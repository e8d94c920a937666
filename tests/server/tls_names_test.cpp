// What a certificate calls its owner, and which patterns of --tls-allow that fits.
#include "server/tls_names.hpp"

#include <openssl/x509v3.h>

#include <fstream>

#include "server/tls_authority.hpp"
#include "tests/server/temporary_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using server::certificate_name;
using server::name_kind;

namespace {

struct part_of_subject {
  const char* kind;
  std::string value;
};

// Nobody signed it; its names are all that is asked.
server::certificate certificate_of(const std::vector<part_of_subject>& subject,
                                   const std::string& others = "") {
  server::certificate made(X509_new());
  for (const auto& each : subject) {
    REQUIRE(X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), each.kind, MBSTRING_UTF8,
                                       reinterpret_cast<const unsigned char*>(each.value.data()),
                                       static_cast<int>(each.value.size()), -1, 0) == 1);
  }
  if (!others.empty()) {
    X509_EXTENSION* const names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, others.c_str());
    REQUIRE(names != nullptr);
    REQUIRE(X509_add_ext(made.get(), names, -1) == 1);
    X509_EXTENSION_free(names);
  }
  return made;
}

bool lets_in(const std::string& pattern, const server::certificate& whom) {
  return server::any_matches({pattern}, server::names_of(*whom));
}

}  // namespace

TEST_CASE("names_match_patterns_as_a_whole_and_by_case") {
  const auto names = [](const std::vector<std::string>& texts) {
    std::vector<certificate_name> all;
    for (const auto& each : texts) all.push_back({name_kind::common, each});
    return all;
  };
  CHECK(server::any_matches({"alice"}, names({"bob", "alice"})));
  CHECK(server::any_matches({"bob", "alice"}, names({"alice"})));
  CHECK(server::any_matches({"*.example.org"}, names({"db.example.org"})));
  CHECK_FALSE(server::any_matches({"*.example.org"}, names({"db.example.org.evil"})));
  CHECK(server::any_matches({"[a-z]lic?"}, names({"alice"})));
  CHECK(server::any_matches({"\\*"}, names({"*"})));
  CHECK_FALSE(server::any_matches({"\\*"}, names({"alice"})));
  CHECK_FALSE(server::any_matches({"alice"}, names({"alice2", "Alice", "malice", ""})));
  CHECK_FALSE(server::any_matches({}, names({"alice"})));
  CHECK_FALSE(server::any_matches({"alice"}, {}));
}

TEST_CASE("a_pattern_fits_the_kinds_of_name_that_it_was_written_for") {
  const auto web = certificate_of({{"CN", "web-1.example.org"}});
  CHECK(lets_in("web-*.example.org", web));
  CHECK(lets_in("web-*.example.org", certificate_of({{"CN", "x"}}, "DNS:web-2.example.org")));
  CHECK(lets_in("192.0.2.*", certificate_of({{"CN", "x"}}, "IP:192.0.2.7")));
  CHECK(lets_in("2001:db8::*", certificate_of({{"CN", "x"}}, "IP:2001:db8::7")));

  SECTION("another part of the subject is no name") {
    const auto other = certificate_of({{"O", "anything.example.org"}, {"CN", "mallory"}});
    for (const char* const pattern : {"*.example.org", "*example.org", "*", "?*O*"}) {
      CAPTURE(pattern);
      CHECK(lets_in(pattern, other) == (std::string(pattern) == "*"));  // for its common name
    }
    CHECK_FALSE(lets_in("*", certificate_of({{"O", "anything.example.org"}})));
    CHECK(lets_in("CN=mallory,O=anything.example.org", other));
    CHECK(lets_in("CN=m*,O=*", other));
    CHECK_FALSE(lets_in("CN=mallory", other));
    CHECK_FALSE(lets_in("CN=*", other));
  }
  SECTION("a name that looks like a subject is none") {
    CHECK_FALSE(lets_in("O=Example", certificate_of({{"CN", "O=Example"}})));
    CHECK_FALSE(lets_in("O=Example", certificate_of({{"CN", "x"}}, "DNS:O=Example")));
    CHECK_FALSE(lets_in("CN=a,O=b", certificate_of({{"CN", "a,O=b"}})));
    CHECK(lets_in("CN=a\\,O=b", certificate_of({{"CN", "a,O=b"}})));
    CHECK_FALSE(lets_in("CN=a\\,O=b", certificate_of({{"O", "b"}, {"CN", "a"}})));
  }
  SECTION("mail and URIs only where they are asked for") {
    const auto mail = certificate_of({{"CN", "mallory"}}, "email:web-m@users.example.org");
    CHECK_FALSE(lets_in("web-*.example.org", mail));
    CHECK_FALSE(lets_in("*.example.org", mail));
    CHECK(lets_in("*@users.example.org", mail));
    CHECK(lets_in("web-?@*.example.org", mail));
    const auto uri = certificate_of({{"CN", "mallory"}}, "URI:spiffe://example.org/web");
    CHECK_FALSE(lets_in("*.org/web", uri));
    CHECK_FALSE(lets_in("*", certificate_of({}, "URI:web")));
    CHECK(lets_in("spiffe://example.org/*", uri));
    CHECK_FALSE(lets_in("spiffe://*", uri));
  }
}

TEST_CASE("a_wildcard_stays_in_its_part_of_the_name") {
  for (const char* const name :
       {"web-1.evil.com/.example.org", "web-1@evil.example.org", "web-1,evil.example.org"}) {
    CAPTURE(name);
    const auto other = certificate_of({{"CN", name}});
    CHECK_FALSE(lets_in("web-*.example.org", other));
    CHECK_FALSE(lets_in("web-1?evil.example.org", other));
    CHECK_FALSE(lets_in("web-1[@/,]evil.example.org", other));
    CHECK_FALSE(lets_in("web-1[!x]evil.example.org", other));
    CHECK(lets_in(name, other));
  }
  CHECK(lets_in("alice@*", certificate_of({{"CN", "alice@example.org"}})));
  CHECK(lets_in("alice\\@*", certificate_of({{"CN", "alice@example.org"}})));
  CHECK_FALSE(lets_in("alice*", certificate_of({{"CN", "alice@example.org"}})));
}

TEST_CASE("a_comma_in_a_value_of_a_subject_ends_no_value_and_no_wildcard_takes_it") {
  const auto web = certificate_of({{"O", "Example"}, {"CN", "web-x"}});
  CHECK(lets_in("CN=web-*,O=Example", web));
  const auto pretends = certificate_of({{"CN", "web-x,O=Example"}});
  const auto pretends_more = certificate_of({{"O", "Example"}, {"CN", "web-evil,OU=servers"}});
  for (const char* const pattern : {"CN=web-*,O=Example", "CN=web-*", "CN=*,*", "CN=web-x?,O=Example",
                                    "CN=web-x[\\],O=Example", "CN=web-x\\\\,O=Example"}) {
    CAPTURE(pattern);
    CHECK_FALSE(lets_in(pattern, pretends));
  }
  CHECK_FALSE(lets_in("CN=web-*,OU=servers,O=Example", pretends_more));
  CHECK(lets_in("CN=web-*\\,O=Example", pretends));
  CHECK(lets_in("CN=web-*\\,OU=servers,O=Example", pretends_more));
  // Other signs that a subject escapes.
  CHECK(lets_in("CN=a*,O=b", certificate_of({{"O", "b"}, {"CN", "a\\"}})));
  CHECK_FALSE(lets_in("CN=a*,O=b", certificate_of({{"CN", "a\\,O=b"}})));
  CHECK(lets_in("CN=a\\\\+*,O=b", certificate_of({{"O", "b"}, {"CN", "a+c"}})));
}

TEST_CASE("a_name_with_a_nul_byte_is_left_out") {
  const auto cut = certificate_of({{"CN", std::string("web-1.example.org\0.evil.com", 27)}});
  CHECK_FALSE(lets_in("web-*.example.org", cut));
  CHECK_FALSE(lets_in("web-*", cut));
}

TEST_CASE("a_certificate_has_its_subject_and_its_other_names") {
  temporary_folder folder;
  const server::tls_authority authority(folder.path_of("keys"), 10);
  authority.make_server({"db.example.org", "192.0.2.1", "::1", "*.example.com"});
  const std::string path = authority.server_folder() + "/server-cert.pem";
  const auto found = server::read_certificates("", path, server::needed_content_of("", path));
  CHECK((server::names_of(*found.front()) ==
         std::vector<certificate_name>{{name_kind::subject, "CN=db.example.org"},
                                       {name_kind::common, "db.example.org"},
                                       {name_kind::dns, "db.example.org"},
                                       {name_kind::address, "192.0.2.1"},
                                       {name_kind::address, "::1"},
                                       {name_kind::dns, "*.example.com"}}));
}
