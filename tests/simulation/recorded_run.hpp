// One random run on real servers: clients read and change the same few blocks all at once over real
// connections, hang up and come back. What they asked and were told, with when each request began and ended,
// is recorded, and must have an explanation (history.hpp). What is asked follows from the seed; when it is
// carried out is the machine's business. A server that goes away in the middle, and comes back, is fine: what
// it had not answered may have happened or not.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/accounted_run.hpp"
#include "tests/simulation/socket_client.hpp"

namespace aionbd::tests {

// Where a run takes place: nobody else touches these bytes of the image.
struct arena {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

class recorded_run : accounted_run {
 public:
  // `paths` are Unix sockets of servers of the same disk, which clients choose from; `image` is its file.
  recorded_run(std::uint64_t seed, std::vector<std::string> paths, std::string image, const arena& where);

  // Empty, or what was wrong. Throws std::runtime_error when a server stays away.
  std::string go();

 private:
  struct client : account {
    std::string path;
    std::unique_ptr<socket_client> talk;
  };

  void connect(client& fresh);
  void begin_with_zeroes();
  void move_all(bool may_wait);
  void hang_up(client& by);
  void come_back(client& by);
  void take(client& by, const answer& given);
  bool is_idle() const;
  void look_at_the_file();

  const std::vector<std::string> paths_;
  const std::string image_;
  const arena arena_;
  std::deque<client> clients_;
};

}  // namespace aionbd::tests
