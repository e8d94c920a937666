#include "server/fence.hpp"

#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <memory>
#include <optional>
#include <system_error>

#include "tests/storage/fake_queue.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;

namespace {

struct waiting_room {
  storage::fake_disk disk{{.size = 512, .direct_end = 512, .alignment = 512, .zeroing_granularity = 512}, 1};
  storage::fake_queue queue{disk};
  server::fence order;
};

// A connection whose client may hang up.
struct comer final : server::fence_listener {
  explicit comer(waiting_room& room) {
    int both[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
    ours = both[0];
    theirs = both[1];
    place.emplace(room.order, ours, room.queue);
  }
  ~comer() {
    place.reset();
    ::close(ours);
    hang_up();
  }
  void hang_up() {
    if (theirs >= 0) ::close(theirs);
    theirs = -1;
  }
  void says_no_more() const { ::shutdown(theirs, SHUT_WR); }
  bool enter() { return place->enter(*this); }
  void way_is_free() noexcept override { ++times_told; }
  void was_barred() noexcept override { ++times_barred; }

  int ours = -1, theirs = -1;
  std::optional<server::fence::member> place;
  int times_told = 0, times_barred = 0;
};

}  // namespace

TEST_CASE("nobody_waits_for_those_whose_clients_are_there") {
  waiting_room room;
  comer first(room), second(room);
  CHECK(first.enter());
  CHECK(second.enter());
}

TEST_CASE("who_comes_later_waits_until_the_last_of_those_that_hung_up_has_left") {
  waiting_room room;
  comer one(room), there(room), other(room), next(room);
  for (comer* each : {&one, &there, &other}) REQUIRE(each->enter());
  one.hang_up();
  other.says_no_more();
  CHECK_FALSE(next.enter());
  one.place->leave();
  room.queue.drain();
  CHECK(next.times_told == 0);
  other.place->leave();
  CHECK(next.times_told == 0);  // by the queue, and not from inside leave()
  room.queue.drain();
  CHECK(next.times_told == 1);
  one.place->leave();  // a second time, by its destructor say
  room.queue.drain();
  CHECK(next.times_told == 1);
}

// Both have hung up before either begins: they must not wait for each other.
TEST_CASE("nobody_waits_for_those_who_came_later") {
  waiting_room room;
  comer first(room), second(room);
  first.hang_up();
  second.hang_up();
  CHECK(first.enter());
  CHECK_FALSE(second.enter());
  first.place->leave();
  room.queue.drain();
  CHECK(second.times_told == 1);
}

TEST_CASE("who_has_waited_long_enough_bars_those_ahead_and_goes_on") {
  waiting_room room;
  comer gone(room), there(room), next(room);
  gone.hang_up();
  REQUIRE_FALSE(next.enter());
  next.place->bar_those_ahead();
  CHECK(gone.place->is_barred());
  CHECK_FALSE(there.place->is_barred());
  CHECK(next.place->stop_waiting());
  gone.place->leave();
  room.queue.drain();
  CHECK(next.times_told == 0);
}

TEST_CASE("word_that_is_on_its_way_still_comes_to_who_stops_waiting") {
  waiting_room room;
  comer gone(room), next(room);
  gone.hang_up();
  REQUIRE_FALSE(next.enter());
  gone.place->leave();
  CHECK_FALSE(next.place->stop_waiting());
  room.queue.drain();
  CHECK(next.times_told == 1);
}

TEST_CASE("who_leaves_while_waiting_is_not_told") {
  waiting_room room;
  comer gone(room);
  {
    comer next(room);
    gone.hang_up();
    REQUIRE_FALSE(next.enter());
    REQUIRE(next.place->stop_waiting());
  }
  gone.place->leave();
  CHECK(room.queue.drain() == 0);
}

TEST_CASE("who_is_barred_is_told_once_and_by_its_queue") {
  waiting_room room;
  comer gone(room), next(room), after(room);
  REQUIRE(gone.enter());
  gone.hang_up();
  REQUIRE_FALSE(next.enter());
  REQUIRE_FALSE(after.enter());
  next.place->bar_those_ahead();
  CHECK(gone.place->is_word_of_bar_under_way());
  CHECK(gone.times_barred == 0);  // by the queue, and not from inside bar_those_ahead()
  after.place->bar_those_ahead();
  room.queue.drain();
  CHECK(gone.times_barred == 1);
  CHECK_FALSE(gone.place->is_word_of_bar_under_way());
  CHECK(room.queue.drain() == 0);
  CHECK(next.place->stop_waiting());
  CHECK(after.place->stop_waiting());
}

TEST_CASE("who_is_barred_and_leaves_is_told_all_the_same") {
  waiting_room room;
  comer gone(room), next(room);
  REQUIRE(gone.enter());
  gone.hang_up();
  REQUIRE_FALSE(next.enter());
  next.place->bar_those_ahead();
  gone.place->leave();
  CHECK(gone.place->is_word_of_bar_under_way());
  room.queue.drain();
  CHECK(gone.times_barred == 1);
  CHECK(next.times_told == 1);
}

TEST_CASE("who_is_barred_before_it_has_entered_sees_it_and_is_not_told") {
  waiting_room room;
  comer gone(room), next(room);
  gone.hang_up();
  REQUIRE_FALSE(next.enter());
  next.place->bar_those_ahead();
  CHECK(next.place->stop_waiting());
  CHECK_FALSE(gone.place->is_word_of_bar_under_way());
  CHECK(room.queue.drain() == 0);
  CHECK(gone.enter());
  CHECK(gone.place->is_barred());
}

TEST_CASE("nobody_waits_for_those_who_are_barred_already") {
  waiting_room room;
  comer gone(room), other(room), next(room), after(room), last(room);
  gone.hang_up();
  REQUIRE_FALSE(next.enter());
  next.place->bar_those_ahead();
  REQUIRE(next.place->stop_waiting());
  CHECK(after.enter());
  other.hang_up();
  CHECK_FALSE(last.enter());
  gone.place->leave();
  room.queue.drain();
  CHECK(last.times_told == 0);
  other.place->leave();
  room.queue.drain();
  CHECK(last.times_told == 1);
}

// poll() takes no more than the limit on descriptors. Some are left to be had: the sanitizers need them.
TEST_CASE("who_cannot_see_whose_client_is_gone_does_not_go_on") {
  waiting_room room;
  comer gone(room), there(room);
  std::deque<server::fence::member> many;
  while (many.size() < 64) many.emplace_back(room.order, there.ours, room.queue);
  comer next(room);
  gone.hang_up();
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit few{.rlim_cur = 64, .rlim_max = before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
  std::error_code thrown;
  try {
    (void)next.enter();
  } catch (const std::system_error& failure) {
    thrown = failure.code();
  }
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(thrown == std::errc::invalid_argument);
  CHECK(room.queue.drain() == 0);
  CHECK_FALSE(next.enter());
  CHECK(next.place->stop_waiting());
}
