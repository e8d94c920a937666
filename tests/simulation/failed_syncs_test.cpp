// The judge of what is told of failed syncs is judged: what it must accept, and what it must refuse.
#include "tests/simulation/failed_syncs.hpp"

#include "tests/support/catch.hpp"

using namespace aionbd::tests;

namespace {

constexpr std::uint32_t ok = 0, eio = 5, enospc = 28;
const std::string fine;
const std::string not_told = "a connection was not told of a failed sync";
const std::string twice = "a connection was told of a failed sync twice";

struct telling : failed_syncs {
  // A connection that is known by now.
  listener present() const {
    listener made;
    is_there(made);
    return made;
  }
  // A flush that is asked for now and answered before anything else happens.
  std::string flush(listener& by, std::uint32_t error) const {
    return judge(by, count(), error, told_by::flush);
  }
  std::string change(listener& by, std::uint32_t error) const {
    return judge(by, count(), error, told_by::change);
  }
};

}  // namespace

TEST_CASE("a_failed_sync_is_told_to_each_connection_once") {
  telling of;
  telling::listener one = of.present(), other = of.present();
  of.fail(eio);
  CHECK(of.flush(one, eio) == fine);
  CHECK(of.flush(one, ok) == fine);
  CHECK(of.flush(other, eio) == fine);
  CHECK(of.flush(one, eio) == twice);
  CHECK(of.flush(other, eio) == twice);
}

TEST_CASE("a_connection_that_is_not_told_is_noticed") {
  telling of;
  telling::listener one = of.present(), other = of.present();
  of.fail(eio);
  CHECK(of.flush(one, eio) == fine);
  CHECK(of.flush(other, ok) == not_told);
  of.fail(eio);
  CHECK(of.flush(one, ok) == not_told);
}

TEST_CASE("a_flush_fails_only_if_a_sync_has") {
  telling of;
  telling::listener one;
  CHECK(of.flush(one, eio) == "a failure without a cause");
  of.fail(eio);
  CHECK(of.change(one, enospc) == "no sync has failed with error 28");
}

// What a sync had no room for is lost.
TEST_CASE("a_flush_that_fails_for_want_of_room_is_noticed_unless_it_is_told_as_a_loss") {
  telling of;
  telling::listener one, other, third;
  of.fail(enospc);
  CHECK(of.flush(one, enospc) == "a flush failed with error 28");
  CHECK(of.flush(other, eio) == fine);
  CHECK(of.flush(other, eio) == twice);
  CHECK(of.change(third, eio) == "no sync has failed with error 5");
  CHECK(of.change(third, enospc) == fine);
}

TEST_CASE("what_is_under_way_when_a_sync_fails_may_be_told_or_not_but_what_follows_knows") {
  telling told, not_yet;
  for (telling* of : {&told, &not_yet}) {
    telling::listener one = of->present();
    const std::size_t asked = of->count();
    of->fail(eio);
    const bool is_told = of == &told;
    CHECK(of->judge(one, asked, is_told ? eio : ok, telling::told_by::flush) == fine);
    telling::listener again = one;
    CHECK(of->flush(one, is_told ? ok : eio) == fine);
    CHECK(of->flush(again, is_told ? eio : ok) == (is_told ? twice : not_told));
  }
}

TEST_CASE("two_flushes_of_one_connection_may_both_have_been_the_failed_syncs") {
  telling of;
  telling::listener one = of.present();
  const std::size_t asked = of.count();
  of.fail(eio);
  CHECK(of.judge(one, asked, eio, telling::told_by::flush) == fine);
  CHECK(of.judge(one, asked, eio, telling::told_by::flush) == fine);
  CHECK(of.flush(one, eio) == twice);
}

// The server was through with the first flush before the second failure, or after it.
TEST_CASE("two_failures_may_be_told_as_one_or_one_by_one") {
  telling of;
  telling::listener one = of.present();
  const std::size_t asked = of.count();
  of.fail(eio);
  of.fail(eio);
  CHECK(of.judge(one, asked, eio, telling::told_by::flush) == fine);
  telling::listener again = one;
  CHECK(of.flush(one, ok) == fine);
  CHECK(of.flush(one, eio) == twice);
  CHECK(of.flush(again, eio) == fine);
  CHECK(of.flush(again, eio) == twice);
}

TEST_CASE("a_new_connection_may_be_told_of_what_was_before_it_and_need_not_be") {
  telling of;
  of.fail(eio);
  telling::listener told, untold;
  CHECK(of.flush(told, eio) == fine);
  CHECK(of.flush(told, eio) == twice);
  CHECK(of.flush(untold, ok) == fine);
  CHECK(of.flush(untold, eio) == twice);
}

TEST_CASE(
    "a_client_that_comes_back_is_told_of_what_failed_while_it_was_away_and_maybe_again_of_what_it_knows") {
  telling of;
  telling::listener one;
  of.is_back(one);
  of.fail(eio);
  CHECK(of.flush(one, eio) == fine);

  telling::is_away(one);
  telling::listener again = one;
  of.is_back(again);
  CHECK(of.flush(again, eio) == fine);
  CHECK(of.flush(again, eio) == twice);

  of.fail(eio);
  of.is_back(one);
  telling::listener forgotten = one;
  CHECK(of.flush(one, eio) == fine);
  CHECK(of.flush(one, ok) == fine);
  CHECK(of.flush(forgotten, ok) == "a client that came back was not told of a failed sync");

  of.fail(eio);
  CHECK(of.flush(one, ok) == not_told);
}

TEST_CASE("want_of_room_that_hides_a_loss_is_noticed") {
  telling of;
  telling::listener one = of.present(), other = of.present();
  of.fail(eio);
  of.fail(enospc);
  CHECK(of.change(one, eio) == fine);
  CHECK(of.change(other, enospc) == "a connection was not told that data was lost");
  of.fail(enospc);
  CHECK(of.change(one, enospc) == fine);
}
