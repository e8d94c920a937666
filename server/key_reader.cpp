#include "server/key_reader.hpp"

#include <boost/asio/post.hpp>
#include <exception>
#include <new>

#include "server/log.hpp"

namespace aionbd::server {

void key_reader::read_again_soon() {
  ++asked_for_;
  try {
    boost::asio::post(thread_, [this] {
      read_again();
      --asked_for_;
    });
  } catch (const std::bad_alloc&) {
    --asked_for_;
    spdlog::error("no memory to read the keys again");
  }
}

void key_reader::read_again() {
  try {
    keys_.read_again();
    for (const auto& each : keys_.current()->warnings()) spdlog::warn("{}", each);
    spdlog::info("new connections: {}", keys_.current()->describe());
  } catch (const std::exception& wrong) {
    spdlog::error("{}; going on with the keys as they were", wrong.what());
  }
}

}  // namespace aionbd::server
