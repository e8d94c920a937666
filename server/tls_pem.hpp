// Certificates and keys out of PEM files, each complaint naming the file and what is wrong with it. For
// start-up and for reading keys again; any thread. Nothing here knows what a connection is.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/file_keeper.hpp"
#include "server/tls_error.hpp"

namespace aionbd::server {

template <auto Free>
struct freed_by {
  template <typename Object>
  void operator()(Object* object) const noexcept {
    Free(object);
  }
};
using certificate = std::unique_ptr<X509, freed_by<X509_free>>;
using private_key = std::unique_ptr<EVP_PKEY, freed_by<EVP_PKEY_free>>;
using revocation_list = std::unique_ptr<X509_CRL, freed_by<X509_CRL_free>>;
using owned_bio = std::unique_ptr<BIO, freed_by<BIO_free_all>>;

// An empty one, to be written to. Throws std::bad_alloc.
[[nodiscard]] owned_bio new_text();
// What was written to such a one.
[[nodiscard]] std::string text_of(const owned_bio& written);

// Overwrites it, so that no copy of memory that was given back has it.
void forget(std::string& key) noexcept;

// What is forgotten when it goes.
class secret {
 public:
  explicit secret(std::string bytes) : bytes_(std::move(bytes)) {}
  secret(const secret&) = delete;
  secret& operator=(const secret&) = delete;
  ~secret() { forget(bytes_); }
  const std::string& get() const { return bytes_; }

 private:
  std::string bytes_;
};

// A file's bytes; nothing when there is no such file. Like all of the below, throws tls_error. `knob` is the
// option that led to the file; `files`, if there is one, opens it.
[[nodiscard]] std::optional<std::string> content_of(const std::string& knob, const std::string& path,
                                                    file_keeper* files = nullptr);
// The same, when the file must be there.
[[nodiscard]] std::string needed_content_of(const std::string& knob, const std::string& path,
                                            file_keeper* files = nullptr);

// All certificates of a file; there is at least one. `content` is what the file of this name holds.
[[nodiscard]] std::vector<certificate> read_certificates(const std::string& knob, const std::string& path,
                                                         const std::string& content);
[[nodiscard]] private_key read_key(const std::string& knob, const std::string& path,
                                   const std::string& content);
[[nodiscard]] std::vector<revocation_list> read_revocations(const std::string& knob, const std::string& path,
                                                            const std::string& content);

// Nothing when the certificate is valid now, else why it is not: "expired on Mar  1 12:00:00 2026 GMT".
[[nodiscard]] std::string why_not_valid_now(const X509& one);
// Likewise of a list, which says itself when the next one is due. One without such a date is good for ever.
[[nodiscard]] std::string why_not_valid_now(const X509_CRL& list);
[[nodiscard]] std::string date_of(const ASN1_TIME* when);

// Says whether others than the owner and its group could read the file. Once the sandbox is closed it cannot
// tell, and says no.
[[nodiscard]] bool is_readable_by_others(const std::string& path);

}  // namespace aionbd::server
