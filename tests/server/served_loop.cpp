#include "tests/server/served_loop.hpp"

#include <boost/asio/co_spawn.hpp>
#include <cstdlib>
#include <utility>

#include "tests/support/catch.hpp"

namespace aionbd::tests {

namespace {

std::string sparse_file(const temporary_folder& folder, std::uint64_t size) {
  std::string path = folder.path_of("served");
  make_sparse_file(path, size);
  return path;
}

}  // namespace

served_loop::served_loop(const served_file& what)
    : path(sparse_file(folder_, what.size)), loop(blocking, what.submit) {
  exports.add("", what.description,
              storage::block_file::open({.path = path, .read_only = what.read_only, .create_size = {}}));
}

void served_loop::run_a_little() {
  loop.context.restart();
  loop.context.run_one_for(std::chrono::milliseconds(1));
}

void served_loop::settle() {
  loop.context.restart();
  while (loop.context.poll() != 0 || loop.aio.outstanding() != 0) {
    loop.context.run_one_for(std::chrono::milliseconds(1));
  }
}

stream_ends served_loop::connect(int type) {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0);
  return {
      client(ends[0], [this] { run_a_little(); }),
      server::transport::socket(loop.context, boost::asio::generic::stream_protocol(AF_UNIX, 0), ends[1])};
}

served_session::served_session(served_loop& on, const session_settings& settings)
    : served_session(on, settings, on.connect(settings.socket_type)) {}

served_session::served_session(served_loop& on, const session_settings& settings, stream_ends ends)
    : peer(std::move(ends.peer)),
      on_(on),
      stream_([&] {
        if (settings.send_buffer != 0) {
          ends.served.set_option(boost::asio::socket_base::send_buffer_size(settings.send_buffer));
        }
        return std::move(ends.served);
      }()),
      place_(on.exports.fence_of(on.info()), stream_.descriptor(), on.loop.queue),
      agreed_{.chosen = &on.info(),
              .no_zeroes = true,
              .block_sizes_requested = settings.block_sizes_requested,
              .replies = settings.replies,
              .allocation_selected = settings.allocation_selected},
      session_(std::make_unique<server::session>(stream_, on.loop, on.exports.device_of(on.info()), place_,
                                                 agreed_, settings.limits)) {
  auto life = [this, read_ahead = settings.read_ahead]() -> boost::asio::awaitable<std::error_code> {
    co_return co_await session_->run(read_ahead);
  };
  boost::asio::co_spawn(on.loop.context, std::move(life),
                        [this](std::exception_ptr escaped, std::error_code why) {
                          session_.reset();
                          escaped_ = escaped;
                          why_ = why;
                          stream_.shut_down();
                        });
}

served_session::~served_session() {
  peer.close();
  // Its coroutine refers to this object.
  if (!on_.run_until([this] { return is_over(); })) std::abort();
}

std::error_code served_session::why() {
  REQUIRE(on_.run_until([this] { return is_over(); }));
  if (escaped_) std::rethrow_exception(escaped_);
  return *why_;
}

}  // namespace aionbd::tests
