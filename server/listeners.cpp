#include "server/listeners.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cerrno>
#include <optional>
#include <utility>

#include "server/log.hpp"
#include "server/unix_socket.hpp"

namespace aionbd::server {

namespace {

namespace asio = boost::asio;
using generic = asio::generic::stream_protocol;
using boost::system::error_code;

constexpr int backlog = 512;

std::string text_of(const asio::ip::tcp::endpoint& address) {
  const std::string host = address.address().to_string();
  return address.address().is_v6() ? fmt::format("[{}]:{}", host, address.port())
                                   : fmt::format("{}:{}", host, address.port());
}

// An IPv4 address in the clothes of IPv6 is what it is.
bool is_for_others(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    return !asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).is_loopback();
  }
  return !address.is_loopback();
}

bool family_is_missing(const error_code& failure) {
  return failure == asio::error::address_family_not_supported ||
         failure == boost::system::errc::address_not_available;
}

std::string advice_on(const error_code& failure) {
  if (failure == asio::error::address_in_use)
    return "; another server is there: stop it, or choose another port";
  if (failure == asio::error::access_denied) return "; ports below 1024 need root";
  return "";
}

std::optional<listener> listen_tcp(asio::io_context& context, const asio::ip::tcp::endpoint& address,
                                   bool must_exist) {
  asio::ip::tcp::acceptor acceptor(context);
  error_code failure;
  acceptor.open(address.protocol(), failure);
  if (!failure) acceptor.set_option(asio::socket_base::reuse_address(true), failure);
  if (!failure && address.address().is_v6()) acceptor.set_option(asio::ip::v6_only(true), failure);
  if (!failure) acceptor.bind(address, failure);
  if (!failure) acceptor.listen(backlog, failure);
  if (failure && !must_exist && family_is_missing(failure)) return std::nullopt;
  if (failure) {
    throw listen_error(
        fmt::format("cannot listen on {}: {}{}", text_of(address), failure.message(), advice_on(failure)));
  }
  std::string text = text_of(acceptor.local_endpoint());
  return listener{stream_acceptor(std::move(acceptor)), std::move(text), nullptr,
                  is_for_others(address.address())};
}

void listen_tcp(asio::io_context& context, const tcp_address& wanted, std::vector<listener>& to) {
  asio::ip::tcp::resolver resolver(context);
  error_code failure;
  const auto found =
      resolver.resolve(wanted.host, std::to_string(wanted.port),
                       asio::ip::tcp::resolver::passive | asio::ip::tcp::resolver::numeric_service, failure);
  if (failure)
    throw listen_error(fmt::format("--listen: '{}' is not known: {}", wanted.host, failure.message()));
  for (const auto& entry : found) {
    // A name may stand for several addresses ("localhost"); a machine without IPv6 has only some of them.
    const bool must_exist = wanted.must_exist && found.size() == 1;
    if (auto opened = listen_tcp(context, entry.endpoint(), must_exist)) to.push_back(std::move(*opened));
  }
}

// How a connection to it fails; no error when somebody answers.
error_code try_to_connect(const std::string& path) {
  asio::io_context context;
  asio::local::stream_protocol::socket probe(context);
  error_code failure;
  probe.connect(asio::local::stream_protocol::endpoint(path), failure);
  return failure;
}

// A socket file that nobody listens on was left by a server that was killed.
void remove_stale_socket(const std::string& path) {
  struct stat facts {};
  if (::lstat(path.c_str(), &facts) != 0) return;
  if (!S_ISSOCK(facts.st_mode)) {
    throw listen_error(fmt::format("--unix: {} exists and is not a socket; it is left alone", path));
  }
  const error_code failure = try_to_connect(path);
  if (!failure) {
    throw listen_error(
        fmt::format("--unix: another server listens on {}; stop it, or choose another path", path));
  }
  // Anything but a refusal, as from a socket of another kind, does not say that nobody uses it.
  if (failure != asio::error::connection_refused) {
    throw listen_error(
        fmt::format("--unix: {} may be in use: {}; it is left alone", path, failure.message()));
  }
  ::unlink(path.c_str());
}

listener listen_unix(asio::io_context& context, const std::string& path, const unix_access& access,
                     file_keeper& files) {
  remove_stale_socket(path);
  std::error_code failure;
  storage::file_descriptor bound = bind_unix_socket(path, access, failure);
  if (failure) throw listen_error(fmt::format("--unix: cannot create {}: {}", path, failure.message()));
  auto file = std::make_unique<socket_file>(path, files);
  stream_acceptor acceptor(context, generic(AF_UNIX, 0), bound.release());
  error_code deaf;
  acceptor.listen(backlog, deaf);
  if (deaf) throw listen_error(fmt::format("--unix: cannot listen on {}: {}", path, deaf.message()));
  return {std::move(acceptor), "unix:" + path, std::move(file)};
}

unix_access access_of(const config& settings) {
  unix_access access{.mode = settings.unix_mode, .owner = {}};
  if (settings.unix_owner) access.owner = find_identity("--unix-owner", *settings.unix_owner);
  return access;
}

std::vector<listener> open_configured(asio::io_context& context, const config& settings, file_keeper& files) {
  std::vector<listener> listeners;
  for (const auto& address : settings.tcp) listen_tcp(context, address, listeners);
  const unix_access access = access_of(settings);
  for (const auto& path : settings.unix_paths) {
    listeners.push_back(listen_unix(context, path, access, files));
  }
  if (listeners.empty()) throw listen_error("--listen: none of the addresses exists on this machine");
  return listeners;
}

// What we were handed: where it listens, and who can reach that.
listener taken_over(asio::io_context& context, int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  auto* const raw = static_cast<sockaddr*>(static_cast<void*>(&address));
  (void)::getsockname(fd, raw, &length);  // sd_is_socket() has just asked the same
  stream_acceptor acceptor(context, generic(raw->sa_family, 0), fd);
  if (raw->sa_family == AF_UNIX) {
    const auto* const path = static_cast<const sockaddr_un*>(static_cast<const void*>(&address))->sun_path;
    return {std::move(acceptor), fmt::format("unix:{}", path), nullptr};
  }
  asio::ip::tcp::endpoint endpoint;
  endpoint.resize(length);
  std::copy_n(static_cast<const std::byte*>(static_cast<const void*>(&address)), length,
              static_cast<std::byte*>(static_cast<void*>(endpoint.data())));
  return {std::move(acceptor), text_of(endpoint), nullptr, is_for_others(endpoint.address())};
}

std::vector<listener> take_handed_over(asio::io_context& context, int count) {
  std::vector<listener> listeners;
  for (int i = 0; i < count; ++i) {
    const int fd = SD_LISTEN_FDS_START + i;
    if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0) {
      throw listen_error(fmt::format("LISTEN_FDS: file descriptor {} is not a listening stream socket", fd));
    }
    listeners.push_back(taken_over(context, fd));
  }
  return listeners;
}

}  // namespace

socket_file::socket_file(std::string path, file_keeper& files) : path_(std::move(path)), files_(files) {
  files_.grant_removal(path_);
}

socket_file::~socket_file() {
  const std::error_code failure = files_.remove(path_);
  if (failure) spdlog::warn("--unix: cannot remove {}: {}", path_, failure.message());
}

std::vector<listener> open_listeners(asio::io_context& context, const config& settings, file_keeper& files) {
  const int count = sd_listen_fds(1);
  auto listeners = count > 0 ? take_handed_over(context, count) : open_configured(context, settings, files);
  if (count > 0 && settings.addresses_were_given) {
    spdlog::warn("--listen and --unix are not used: the service manager handed over its sockets instead");
  }
  // Else Asio takes a client that has gone for none at all and waits for another, though more may be waiting
  // already.
  for (auto& each : listeners) each.acceptor.set_option(asio::socket_base::enable_connection_aborted(true));
  return listeners;
}

}  // namespace aionbd::server
