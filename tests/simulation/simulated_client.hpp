// A client of a simulated server that keeps the protocol: shakes hands, asks, and reads the replies. What it
// says and hears moves only when it is told to, as much as it is told to.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/simulation/reply_reader.hpp"
#include "tests/simulation/simulated_server.hpp"

namespace aionbd::tests {

struct client_settings {
  protocol::reply_mode replies = protocol::reply_mode::simple;
  std::string asks_for{};
  std::size_t loop_number = 0;
  int send_buffer = 0;  // of the server's end
};

class simulated_client {
 public:
  simulated_client(simulated_server& server, const client_settings& settings);

  protocol::reply_mode mode() const { return agreed_.agreed.replies; }

  // To be said, behind what was not said yet. The cookie is the client's to choose: it is set, and returned.
  std::uint64_t ask(protocol::request what, std::span<const std::byte> payload = {});

  // DISC, behind everything.
  void say_goodbye();

  // Whether anything moved.
  bool say(std::size_t length);
  bool hear(std::size_t length);

  std::vector<answer> take_answers() { return reader_.take_answers(); }
  std::size_t unanswered() const { return reader_.unanswered(); }
  const std::string& complaint() const { return reader_.complaint(); }
  bool is_at_end() const { return stream_.end.is_at_end(); }
  void say_no_more() { stream_.end.say_no_more(); }
  void hang_up() { stream_.end.close(); }
  // While it lives.
  server::connection& connection() { return *stream_.served.lock(); }
  const std::weak_ptr<server::connection>& served() const { return stream_.served; }

  // Says, hears and lets everything happen until all that was asked is answered: the one answer, or all in
  // order of their arrival. Throws if one does not come, or is not as the specification has it.
  answer answer_to(const protocol::request& what, std::span<const std::byte> payload = {});
  std::vector<answer> all_answers();

 private:
  void say_later(const protocol::request& what);

  simulated_server& server_;
  byte_vector to_say_;
  agreement agreed_;
  reply_reader reader_;
  simulated_server::client stream_;
  std::size_t handshake_left_;  // bytes of the server's that are still to come
  std::uint64_t last_cookie_ = 0;
};

}  // namespace aionbd::tests
