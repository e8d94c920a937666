#include "server/tls_pem.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace aionbd::server {

namespace {

constexpr std::size_t file_length_max = std::size_t{1} << 20;
constexpr std::size_t content_length_usual = std::size_t{16} << 10;

owned_bio reading(const std::string& content) {
  // content_of() has seen to it that the length is one of an int.
  return owned_bio(BIO_new_mem_buf(content.data(), static_cast<int>(content.size())));
}

// Instead of a question on the terminal, which OpenSSL would ask.
int no_password(char*, int, int, void* was_asked) {
  *static_cast<bool*>(was_asked) = true;
  return -1;
}

// Every object of one kind in a file. Other kinds are passed over by OpenSSL itself.
template <typename Owner, typename Read>
std::vector<Owner> all_of(const std::string& knob, const std::string& path, const std::string& content,
                          const char* kind, Read read) {
  std::vector<Owner> found;
  const owned_bio source = reading(content);
  ERR_clear_error();
  while (auto* const each = read(source.get(), nullptr, nullptr, nullptr)) found.emplace_back(each);
  // That nothing follows is how the loop ends.
  const bool is_at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  const std::string reason = take_tls_reason();
  if (!is_at_end) throw tls_error(fmt::format("{}: {} has a damaged {}: {}", knob, path, kind, reason));
  if (found.empty()) throw tls_error(fmt::format("{}: {} has no {} in PEM format", knob, path, kind));
  return found;
}

// `until` may be missing.
std::string why_not_now(const ASN1_TIME* from, const ASN1_TIME* until) {
  if (until != nullptr && X509_cmp_current_time(until) <= 0) return "expired on " + date_of(until);
  if (X509_cmp_current_time(from) >= 0) return "is not valid before " + date_of(from);
  return {};
}

}  // namespace

owned_bio new_text() {
  owned_bio made(BIO_new(BIO_s_mem()));
  if (!made) throw std::bad_alloc();
  return made;
}

std::string text_of(const owned_bio& written) {
  char* text = nullptr;
  const long length = BIO_get_mem_data(written.get(), &text);
  return {text, static_cast<std::size_t>(length)};
}

void forget(std::string& key) noexcept {
  OPENSSL_cleanse(key.data(), key.size());
}

std::optional<std::string> content_of(const std::string& knob, const std::string& path, file_keeper* files) {
  const auto refuse = [&](const std::error_code& why) {
    throw tls_error(fmt::format("{}: cannot read {}: {}", knob, path, why.message()));
  };
  std::error_code failure;
  storage::file_descriptor opened;
  if (files != nullptr) {
    opened = files->open(path, failure);
  } else {
    // A pipe in the file's place must not keep us waiting.
    opened = storage::file_descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!opened) failure.assign(errno, std::system_category());
  }
  if (failure == std::errc::no_such_file_or_directory) return std::nullopt;
  if (failure) refuse(failure);
  // Keys come this way too: the usual ones leave no copy behind.
  std::string content;
  content.reserve(content_length_usual);
  for (;;) {
    std::array<char, 4096> buffer;
    const ssize_t got = ::read(opened.get(), buffer.data(), buffer.size());
    if (got < 0) refuse({errno, std::system_category()});
    if (got == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(got));
    OPENSSL_cleanse(buffer.data(), static_cast<std::size_t>(got));
    if (content.size() > file_length_max) refuse(std::make_error_code(std::errc::file_too_large));
  }
}

std::string needed_content_of(const std::string& knob, const std::string& path, file_keeper* files) {
  auto content = content_of(knob, path, files);
  if (!content) throw tls_error(fmt::format("{}: there is no {}; aionbd keygen makes one", knob, path));
  return *std::move(content);
}

std::vector<certificate> read_certificates(const std::string& knob, const std::string& path,
                                           const std::string& content) {
  return all_of<certificate>(knob, path, content, "certificate", PEM_read_bio_X509);
}

std::vector<revocation_list> read_revocations(const std::string& knob, const std::string& path,
                                              const std::string& content) {
  return all_of<revocation_list>(knob, path, content, "revocation list", PEM_read_bio_X509_CRL);
}

private_key read_key(const std::string& knob, const std::string& path, const std::string& content) {
  const owned_bio source = reading(content);
  bool was_asked = false;
  ERR_clear_error();
  private_key key(PEM_read_bio_PrivateKey(source.get(), nullptr, no_password, &was_asked));
  const std::string reason = take_tls_reason();
  if (was_asked) throw tls_error(fmt::format("{}: {} is locked by a password; store it without", knob, path));
  if (!key) throw tls_error(fmt::format("{}: {} has no private key in PEM format: {}", knob, path, reason));
  return key;
}

std::string date_of(const ASN1_TIME* when) {
  const owned_bio out = new_text();
  return ASN1_TIME_print(out.get(), when) == 1 ? text_of(out) : "an unreadable date";
}

std::string why_not_valid_now(const X509& one) {
  return why_not_now(X509_get0_notBefore(&one), X509_get0_notAfter(&one));
}

std::string why_not_valid_now(const X509_CRL& list) {
  return why_not_now(X509_CRL_get0_lastUpdate(&list), X509_CRL_get0_nextUpdate(&list));
}

bool is_readable_by_others(const std::string& path) {
  struct stat facts {};
  return ::stat(path.c_str(), &facts) == 0 && (facts.st_mode & S_IROTH) != 0;
}

}  // namespace aionbd::server
