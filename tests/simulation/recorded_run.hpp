// One random run on real servers: clients read and change the same few blocks all at once over real
// connections, hang up and come back. What they asked and were told, with when each request began and ended,
// is recorded, and must have an explanation (history.hpp). What is asked follows from the seed; when it is
// carried out is the machine's business. A server that goes away in the middle, and comes back, is fine: what
// it had not answered may have happened or not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/simulation/history.hpp"
#include "tests/simulation/socket_client.hpp"

namespace aionbd::tests {

// Where a run takes place: nobody else touches these bytes of the image.
struct arena {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

class recorded_run {
 public:
  // `paths` are Unix sockets of servers of the same disk, which clients choose from; `image` is its file.
  recorded_run(std::uint64_t seed, std::vector<std::string> paths, std::string image, const arena& where);

  // Empty, or what was wrong. Throws std::runtime_error when a server stays away.
  std::string go();

 private:
  enum class kind { change, trim, look, flush };
  struct pending {
    kind what = kind::flush;
    std::size_t number = 0;  // in the history
  };
  struct client {
    std::string path;
    std::unique_ptr<socket_client> talk;
    std::map<std::uint64_t, pending> in_flight;  // by cookie
    std::vector<std::size_t> left_behind;        // changes on connections it has hung up on
    std::size_t fenced = 0;                      // of these
  };

  std::uint64_t random(std::uint64_t limit) { return generator_() % limit; }
  bool one_in(std::uint64_t count) { return random(count) == 0; }
  static bool is_change(const pending& account) {
    return account.what == kind::change || account.what == kind::trim;
  }

  void connect(client& fresh);
  void begin_with_zeroes();
  protocol::request random_request();
  void begin_request(client& by);
  pending record(const protocol::request& asked, std::byte value);
  void move_all(bool may_wait);
  void hang_up(client& by);
  void come_back(client& by);
  void settle_account(client& by, const answer& given);
  bool is_idle() const;
  void look_at_the_file();
  void complain(const std::string& what);

  std::mt19937_64 generator_;
  const std::vector<std::string> paths_;
  const std::string image_;
  const arena arena_;
  const bool has_hang_ups_;
  history history_;
  std::deque<client> clients_;
  std::size_t requests_left_;
  std::size_t changes_ = 0;
  std::string complaint_;
};

}  // namespace aionbd::tests
