// The files behind TLS: every complaint names the file and what is wrong with it. And the making of such
// files.
#include "server/tls_context.hpp"

#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "server/tls_authority.hpp"
#include "tests/server/tls_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
namespace fs = std::filesystem;

namespace {

// What is wrong with the keys, "" when nothing is.
std::string complaint_about(const server::tls_settings& settings) {
  try {
    const server::tls_context made(settings);
    return "";
  } catch (const server::tls_error& wrong) {
    return wrong.what();
  }
}

std::string content_of(const std::string& path) {
  std::ostringstream all;
  all << std::ifstream(path).rdbuf();
  return all.str();
}

void put(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::trunc) << content;
}

mode_t mode_of(const std::string& path) {
  struct stat facts {};
  REQUIRE(::lstat(path.c_str(), &facts) == 0);
  return facts.st_mode & 07777U;
}

// Another server's certificate by the same authority, valid for so many days.
void reissue_server(const test_keys& keys, int days) {
  fs::remove_all(keys.server());
  server::tls_authority(keys.root(), days).make_server({"localhost"});
}

}  // namespace

TEST_CASE("keys_as_keygen_makes_them_are_taken_without_a_warning") {
  const test_keys keys;
  const server::tls_context made(keys.settings());
  CHECK(made.warnings().empty());
  CHECK(made.asks_for_certificates());
  CHECK_FALSE(made.lets_anybody_in());
  CHECK(made.describe() == "certificates of " + keys.server() +
                               ", clients must show one of its authority; pre-shared keys of 2 users");
  CHECK(made.key_of("carol") == keys.carols_key());
  CHECK(made.key_of("mallory").empty());
}

TEST_CASE("a_missing_file_is_named") {
  for (const char* const name : {"server-cert.pem", "server-key.pem"}) {
    const test_keys keys;
    fs::remove(keys.server() + "/" + name);
    CHECK(complaint_about(keys.settings()) ==
          "--tls-certificates: there is no " + keys.server() + "/" + name + "; aionbd keygen makes one");
  }
  const test_keys keys;
  fs::remove(keys.psk());
  CHECK(complaint_about(keys.settings()) ==
        "--tls-psk: there is no " + keys.psk() + "; aionbd keygen makes one");
}

TEST_CASE("a_file_that_cannot_be_read_is_named_and_never_taken_for_a_missing_one") {
  for (const char* const name : {"server-cert.pem", "server-key.pem", "ca-cert.pem", "ca-crl.pem"}) {
    CAPTURE(name);
    const test_keys keys;
    const std::string path = keys.server() + "/" + name;
    fs::remove(path);
    fs::create_directory(path);  // root may read every file, but no folder as one
    CHECK(complaint_about(keys.settings()) == "--tls-certificates: cannot read " + path + ": Is a directory");
  }
}

TEST_CASE("a_file_of_something_else_is_named") {
  const test_keys keys;
  for (const char* const name : {"server-cert.pem", "server-key.pem", "ca-cert.pem"}) {
    CAPTURE(name);
    const std::string path = keys.server() + "/" + name;
    const std::string before = content_of(path);
    for (const std::string& wrong :
         {std::string(), std::string("rubbish\n"), before.substr(0, before.size() / 2)}) {
      put(path, wrong);
      CHECK(complaint_about(keys.settings()).find("--tls-certificates: " + path + " has ") == 0);
    }
    put(path, before);
  }
  put(keys.psk(), "rubbish\n");
  CHECK(complaint_about(keys.settings()) ==
        "--tls-psk: " + keys.psk() + ", line 1: not a user, a colon and a key");
}

TEST_CASE("a_file_without_end_is_not_read_to_its_end") {
  const test_keys keys;
  fs::remove(keys.psk());
  fs::create_symlink("/dev/zero", keys.psk());
  CHECK(complaint_about(keys.settings()) == "--tls-psk: cannot read " + keys.psk() + ": File too large");
}

TEST_CASE("a_key_of_another_certificate_is_named") {
  const test_keys keys, others;
  put(keys.server() + "/server-key.pem", content_of(others.server() + "/server-key.pem"));
  CHECK(complaint_about(keys.settings()) == "--tls-certificates: " + keys.server() +
                                                "/server-key.pem is not the key of " + keys.server() +
                                                "/server-cert.pem");
}

TEST_CASE("an_expired_certificate_is_named_with_its_date") {
  const test_keys keys;
  reissue_server(keys, -1);
  const std::string complaint = complaint_about(keys.settings());
  CHECK(complaint.find("--tls-certificates: " + keys.server() + "/server-cert.pem expired on ") == 0);
  CHECK(complaint.ends_with(" GMT"));
}

TEST_CASE("an_expired_certificate_behind_the_servers_own_is_named_with_its_date") {
  const test_keys keys;
  temporary_folder other;
  const server::tls_authority between(other.path_of("between"), -1), valid(other.path_of("valid"), 10);
  const std::string path = keys.server() + "/server-cert.pem", own = content_of(path);
  const std::string good = content_of(valid.folder() + "/ca-cert.pem");
  put(path, own + good);
  CHECK(complaint_about(keys.settings()).empty());
  put(path, own + good + content_of(between.folder() + "/ca-cert.pem"));
  const std::string complaint = complaint_about(keys.settings());
  CHECK(complaint.find("--tls-certificates: " + path + ": 'CN=aionbd authority of ") == 0);
  CHECK(complaint.find("' in it expired on ") != std::string::npos);
  CHECK(complaint.ends_with(" GMT"));
}

TEST_CASE("an_expired_authority_is_named") {
  const test_keys keys;
  temporary_folder other;
  const server::tls_authority old(other.path_of("old"), -1);
  put(keys.server() + "/ca-cert.pem", content_of(old.folder() + "/ca-cert.pem"));
  CHECK(complaint_about(keys.settings())
            .find("--tls-certificates: " + keys.server() + "/ca-cert.pem expired on ") == 0);
  // Beside one that is valid it does no harm.
  put(keys.server() + "/ca-cert.pem",
      content_of(old.folder() + "/ca-cert.pem") + content_of(keys.root() + "/ca-cert.pem"));
  CHECK(complaint_about(keys.settings()).empty());
}

TEST_CASE("a_key_that_a_password_locks_is_named_and_nobody_is_asked_for_it") {
  const test_keys keys;
  const std::string path = keys.server() + "/server-key.pem";
  const server::private_key key = server::read_key("", path, content_of(path));
  std::FILE* const out = std::fopen(path.c_str(), "w");
  REQUIRE(PEM_write_PrivateKey(out, key.get(), EVP_aes_128_cbc(), nullptr, 0, nullptr,
                               const_cast<char*>("secret")) == 1);
  std::fclose(out);
  CHECK(complaint_about(keys.settings()) ==
        "--tls-certificates: " + path + " is locked by a password; store it without");
}

TEST_CASE("keys_that_everybody_can_read_are_served_with_a_warning") {
  const test_keys keys;
  for (const std::string& path : {keys.server() + "/server-key.pem", keys.psk()}) {
    CHECK(mode_of(path) == 0600);
    ::chmod(path.c_str(), 0644);
    const server::tls_context made(keys.settings());
    REQUIRE(made.warnings().size() == 1);
    CHECK(made.warnings()[0] == "every user of this machine can read " + path + "; chmod 600 it");
    ::chmod(path.c_str(), 0640);  // a group of the service's own is a usual way
    CHECK(server::tls_context(keys.settings()).warnings().empty());
  }
}

TEST_CASE("without_an_authority_clients_need_no_certificate_but_names_cannot_be_allowed") {
  const test_keys keys;
  fs::remove(keys.server() + "/ca-cert.pem");
  auto settings = keys.settings();
  const server::tls_context made(settings);
  CHECK_FALSE(made.asks_for_certificates());
  CHECK(made.lets_anybody_in());
  CHECK(made.describe().find("clients need none, as there is no ca-cert.pem") != std::string::npos);
  server::tls_stream stream(std::make_shared<const server::tls_context>(settings));
  tls_client nobody;
  nobody.exchange(stream);
  CHECK(nobody.of_server.next == server::tls_stream::need::nothing);
  CHECK_FALSE(nobody.of_server.failure);

  settings.allowed_names = {"alice"};
  CHECK(complaint_about(settings) ==
        "--tls-allow: there is no " + keys.server() + "/ca-cert.pem to tell whose names are true");
}

TEST_CASE("keys_that_are_read_again_are_for_new_connections_only") {
  const test_keys keys;
  server::tls_keys under_test(keys.settings());
  const auto before = under_test.current();
  reissue_server(keys, 10);
  under_test.read_again();
  CHECK(under_test.current() != before);
  // Whoever has the old ones goes on with them.
  server::tls_stream stream(before);
  tls_client alice({.folder = keys.client("alice")});
  alice.exchange(stream);
  CHECK_FALSE(alice.of_server.failure);
}

TEST_CASE("keys_that_cannot_be_read_again_stay_as_they_were") {
  const test_keys keys;
  server::tls_keys under_test(keys.settings());
  const auto before = under_test.current();
  const auto fails = [&] {
    CHECK_THROWS_AS(under_test.read_again(), server::tls_error);
    CHECK(under_test.current() == before);
  };
  reissue_server(keys, -1);
  fails();
  fs::remove_all(keys.server());
  fails();
}

// Or deleting a file would open the door to everybody.
TEST_CASE("an_authority_that_has_gone_is_no_reason_to_ask_for_no_certificates") {
  const test_keys keys;
  server::tls_keys under_test(keys.settings());
  fs::remove(keys.server() + "/ca-cert.pem");
  CHECK_THROWS_AS(under_test.read_again(), server::tls_error);
  CHECK(under_test.current()->asks_for_certificates());
}

TEST_CASE("keygen_overwrites_nothing_and_keeps_keys_to_their_owner") {
  temporary_folder folder;
  const std::string root = folder.path_of("keys");
  {
    const server::tls_authority made(root, 10);
    CHECK(made.is_new());
    made.make_server({"localhost"});
    made.make_client("alice");
  }
  const server::tls_authority again(root, 10);
  CHECK_FALSE(again.is_new());
  const std::string server_key = content_of(root + "/server/server-key.pem");
  CHECK_THROWS_AS(again.make_server({"localhost"}), server::tls_error);
  CHECK_THROWS_AS(again.make_client("alice"), server::tls_error);
  CHECK(content_of(root + "/server/server-key.pem") == server_key);
  again.make_client("bob");
  CHECK_THROWS_AS(server::write_new_file(root + "/ca-key.pem", "x"), server::tls_error);

  for (const char* const key : {"/ca-key.pem", "/server/server-key.pem", "/clients/bob/client-key.pem"})
    CHECK(mode_of(root + key) == 0600);
  for (const char* const path : {"", "/server", "/clients", "/clients/bob"})
    CHECK(mode_of(root + path) == 0700);
}

TEST_CASE("a_link_is_not_followed_where_a_key_is_made") {
  temporary_folder folder;
  const std::string link = folder.path_of("link"), target = folder.path_of("target");
  fs::create_symlink(target, link);
  CHECK_THROWS_AS(server::write_new_file(link, "secret"), server::tls_error);
  CHECK_FALSE(fs::exists(target));
}

TEST_CASE("names_for_keygen_are_harmless_ones") {
  for (const char* const good :
       {"localhost", "db-1.example.org", "192.0.2.1", "2001:db8::1", "*.example.org"})
    CHECK(server::is_host(good));
  for (const char* const bad : {"", "a,DNS:b", "a b", "a\n", "a/b"}) CHECK_FALSE(server::is_host(bad));
  for (const char* const good : {"alice", "web_1", "a.b", "alice@example.org"})
    CHECK(server::is_client(good));
  for (const char* const bad : {"", ".", "..", "a/b", ".hidden", "a b", "a,b"})
    CHECK_FALSE(server::is_client(bad));
  CHECK(server::is_client(std::string(64, 'a')));
  CHECK_FALSE(server::is_client(std::string(65, 'a')));
}
