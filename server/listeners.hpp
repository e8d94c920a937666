// The sockets that clients connect to: TCP, Unix, or handed over by systemd. For start-up: blocks while it
// resolves names, and throws listen_error with a sentence for people.
#pragma once

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "server/config.hpp"
#include "server/file_keeper.hpp"

namespace aionbd::server {

using stream_acceptor = boost::asio::basic_socket_acceptor<boost::asio::generic::stream_protocol>;

class listen_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A Unix socket's file, removed when this goes, unless something else stands there by then.
class socket_file {
 public:
  // `files` must outlive it.
  socket_file(std::string path, file_keeper& files);
  socket_file(const socket_file&) = delete;
  socket_file& operator=(const socket_file&) = delete;
  ~socket_file();

 private:
  const std::string path_;
  file_keeper& files_;
};

struct listener {
  stream_acceptor acceptor;
  std::string address;                // for people: "127.0.0.1:10809", "unix:/run/aionbd.sock"
  std::unique_ptr<socket_file> file;  // of a Unix socket that we made
  bool is_for_others = false;         // other machines can reach it
};

// Those of the configuration, or, when systemd handed sockets over, those and no others. `files` is granted
// what is to be removed at the end, and must outlive them.
[[nodiscard]] std::vector<listener> open_listeners(boost::asio::io_context& context, const config& settings,
                                                   file_keeper& files);

}  // namespace aionbd::server
