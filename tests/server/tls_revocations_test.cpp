// Lists of revoked certificates: who is on one stays outside, and no list that has gone or grown old opens
// the door again.
#include <openssl/pem.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "server/tls_names.hpp"
#include "server/tls_pem.hpp"
#include "tests/server/tls_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
namespace fs = std::filesystem;

namespace {

std::string list_of(const test_keys& keys) {
  return keys.server() + "/ca-crl.pem";
}

struct shape_of_list {
  std::vector<std::string> revoked{};
  long from = -3600;  // seconds from now
  long until = 3600;
  const test_keys* signed_by = nullptr;  // instead of the authority it says
  bool is_dated = true;
};

server::private_key key_at(const std::string& path) {
  std::ifstream in(path);
  return server::read_key("", path, std::string(std::istreambuf_iterator<char>(in), {}));
}

server::certificate certificate_at(const std::string& path) {
  std::ifstream in(path);
  auto found = server::read_certificates("", path, std::string(std::istreambuf_iterator<char>(in), {}));
  return std::move(found.front());
}

// The list of these keys' authority, where the server looks for it.
void write_list(const test_keys& keys, const shape_of_list& shape = {}) {
  const server::revocation_list list(X509_CRL_new());
  const auto authority = certificate_at(keys.root() + "/ca-cert.pem");
  const auto key = key_at((shape.signed_by != nullptr ? *shape.signed_by : keys).root() + "/ca-key.pem");
  const std::unique_ptr<ASN1_TIME, server::freed_by<ASN1_TIME_free>> when(ASN1_TIME_new());
  X509_CRL_set_version(list.get(), X509_CRL_VERSION_2);
  X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(authority.get()));
  X509_CRL_set1_lastUpdate(list.get(), X509_gmtime_adj(when.get(), shape.from));
  if (shape.is_dated) X509_CRL_set1_nextUpdate(list.get(), X509_gmtime_adj(when.get(), shape.until));
  for (const auto& name : shape.revoked) {
    X509_REVOKED* const entry = X509_REVOKED_new();
    const auto revoked = certificate_at(keys.client(name) + "/client-cert.pem");
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked.get()));
    X509_REVOKED_set_revocationDate(entry, X509_gmtime_adj(when.get(), -60));
    X509_CRL_add0_revoked(list.get(), entry);
  }
  REQUIRE(X509_CRL_sign(list.get(), key.get(), EVP_sha256()) != 0);
  std::FILE* const out = std::fopen(list_of(keys).c_str(), "w");
  REQUIRE(out != nullptr);
  REQUIRE(PEM_write_X509_CRL(out, list.get()) == 1);
  std::fclose(out);
}

std::string complaint_about(const test_keys& keys) {
  try {
    const server::tls_context made(keys.settings());
    return "";
  } catch (const server::tls_error& wrong) {
    return wrong.what();
  }
}

std::string complaint_of(server::tls_keys& keys) {
  try {
    keys.read_again();
    return "";
  } catch (const server::tls_error& wrong) {
    return wrong.what();
  }
}

// "" when the client comes in, or else why not.
std::string refusal_of(const test_keys& keys, const std::string& name,
                       std::shared_ptr<const server::tls_context> context) {
  server::tls_stream stream(std::move(context));
  tls_client client({.folder = keys.client(name)});
  client.exchange(stream);
  return client.of_server.failure ? stream.describe() : "";
}

}  // namespace

TEST_CASE("who_is_revoked_stays_outside_and_nobody_else") {
  const test_keys keys;
  write_list(keys, {.revoked = {"alice"}});
  const auto context = std::make_shared<const server::tls_context>(keys.settings());
  CHECK(context->checks_revocations());
  CHECK(context->describe().find(
            "must show one of its authority, not revoked by ca-crl.pem, which is good until ") !=
        std::string::npos);
  CHECK(refusal_of(keys, "alice", context) == "the client's certificate: certificate revoked");
  CHECK(refusal_of(keys, "bob", context).empty());
}

TEST_CASE("a_list_without_a_date_is_good_for_ever") {
  const test_keys keys;
  write_list(keys, {.revoked = {"alice"}, .is_dated = false});
  const auto context = std::make_shared<const server::tls_context>(keys.settings());
  CHECK(context->describe().find("not revoked by ca-crl.pem; ") != std::string::npos);
  CHECK_FALSE(refusal_of(keys, "alice", context).empty());
  CHECK(refusal_of(keys, "bob", context).empty());
}

TEST_CASE("a_list_that_would_lock_everybody_out_is_named") {
  const test_keys keys, others;
  const std::string begin = "--tls-certificates: " + list_of(keys);
  write_list(keys, {.from = -7200, .until = -3600});
  const std::string complaint = complaint_about(keys);
  CHECK(complaint.find(begin + " expired on ") == 0);
  CHECK(complaint.ends_with(" GMT; clients need a new one"));
  write_list(keys, {.from = 3000});
  CHECK(complaint_about(keys).find(begin + " is not valid before ") == 0);
  // Of another authority; and one that only says it is of ours.
  write_list(others);
  fs::copy_file(list_of(others), list_of(keys), fs::copy_options::overwrite_existing);
  CHECK(complaint_about(keys) == begin + " is not signed by an authority in ca-cert.pem");
  write_list(keys, {.signed_by = &others});
  CHECK(complaint_about(keys) == begin + " is not signed by an authority in ca-cert.pem");
  write_list(keys);
  CHECK(complaint_about(keys).empty());
}

// Whose clients OpenSSL turns away.
TEST_CASE("an_authority_without_a_list_is_named") {
  const test_keys keys, others;
  write_list(keys);
  CHECK(server::tls_context(keys.settings()).warnings().empty());
  const std::string another = others.root() + "/ca-cert.pem";
  std::ofstream(keys.server() + "/ca-cert.pem", std::ios::app) << std::ifstream(another).rdbuf();
  const server::tls_context made(keys.settings());
  REQUIRE(made.warnings().size() == 1);
  CHECK(made.warnings()[0] == list_of(keys) + " has no list of '" +
                                  server::subject_of(*certificate_at(another)) +
                                  "': clients whose certificates it signed are refused");
}

// Or deleting a file would let those in again who are revoked.
TEST_CASE("a_list_that_has_gone_is_no_reason_to_ask_for_none") {
  const test_keys keys;
  write_list(keys, {.revoked = {"alice"}});
  server::tls_keys under_test(keys.settings());
  fs::remove(list_of(keys));
  CHECK(complaint_of(under_test) == "--tls-certificates: there is no " + list_of(keys) +
                                        " any more, and revoked clients are still kept out");
  CHECK_FALSE(refusal_of(keys, "alice", under_test.current()).empty());
  write_list(keys, {.revoked = {"bob"}, .from = -7200, .until = -3600});
  CHECK(complaint_of(under_test).find(" expired on ") != std::string::npos);
  CHECK(refusal_of(keys, "bob", under_test.current()).empty());
  write_list(keys, {.revoked = {"alice", "bob"}});
  under_test.read_again();
  CHECK_FALSE(refusal_of(keys, "alice", under_test.current()).empty());
  CHECK_FALSE(refusal_of(keys, "bob", under_test.current()).empty());
}

TEST_CASE("a_list_that_expires_later_keeps_everybody_out_and_the_log_knows_why") {
  const test_keys keys;
  write_list(keys, {.until = 3});
  const auto context = std::make_shared<const server::tls_context>(keys.settings());
  std::string refusal;
  for (int tries = 0; refusal.empty() && tries < 300; ++tries) {
    ::usleep(100'000);
    refusal = refusal_of(keys, "bob", context);
  }
  CHECK(refusal == "ca-crl.pem has expired, and who is revoked is not known");
}
