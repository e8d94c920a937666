// The judge of histories is judged: what it must accept, and what it must refuse.
#include "tests/simulation/history.hpp"

#include "tests/support/catch.hpp"

using namespace aionbd::tests;

namespace {

constexpr std::size_t disk = 8;
constexpr std::byte A{1}, B{2}, C{3}, zero{0}, dropped{0xDD};

// A history of whole-disk requests, in as few words as possible.
struct story : history {
  story() : history(disk) {}
  static byte_vector all(std::byte value) { return byte_vector(disk, value); }

  std::size_t begin(std::byte value, bool durable = false) { return begin_change(0, disk, value, durable); }
  void ends(std::size_t number) { end_change(number, true); }
  void fails(std::size_t number) { end_change(number, false); }
  void writes(std::byte value, bool durable = false) { ends(begin(value, durable)); }
  std::size_t looks() { return begin_look(0, disk); }
  void sees(std::size_t number, std::byte value) { end_look(number, all(value)); }
  void reads(std::byte value) { sees(looks(), value); }
  void flushes(std::size_t by = 0) { end_flush(begin_flush(by), true); }
  void is_cut_to(std::byte value) { cut_power(all(value)); }
  bool holds() const { return contradiction().empty(); }
};

}  // namespace

TEST_CASE("a_new_disk_is_zeroes") {
  story good, bad;
  good.reads(zero);
  CHECK(good.holds());
  bad.reads(A);
  CHECK_FALSE(bad.holds());
}

TEST_CASE("what_was_answered_is_read") {
  story good, stale, invented;
  for (story* each : {&good, &stale, &invented}) {
    each->writes(A);
    each->writes(B);
  }
  good.reads(B);
  CHECK(good.holds());
  stale.reads(A);
  CHECK_FALSE(stale.holds());
  invented.reads(C);
  CHECK_FALSE(invented.holds());
}

TEST_CASE("a_look_during_a_change_sees_the_old_or_the_new") {
  for (const std::byte seen : {zero, A, B, C}) {
    story during;
    during.writes(A);
    const auto change = during.begin(B);
    const auto look = during.looks();
    during.ends(change);
    during.sees(look, seen);
    CHECK(during.holds() == (seen == A || seen == B));
  }
}

TEST_CASE("bytes_of_one_look_may_see_different_changes") {
  story torn;
  const auto change = torn.begin(A);
  const auto look = torn.looks();
  byte_vector half = story::all(zero);
  half[3] = A;
  torn.end_look(look, half);
  torn.ends(change);
  CHECK(torn.holds());
  torn.reads(A);
  CHECK(torn.holds());
  torn.end(half);
  CHECK_FALSE(torn.holds());
}

TEST_CASE("nothing_is_seen_before_it_was_asked_for") {
  story early;
  early.reads(A);
  early.writes(A);
  CHECK_FALSE(early.holds());
}

TEST_CASE("changes_at_the_same_time_come_in_one_order") {
  const auto concurrent = [](story& on) {
    const auto one = on.begin(A);
    const auto other = on.begin(B);
    on.ends(one);
    on.ends(other);
  };
  for (const std::byte last : {A, B}) {
    story good, turned;
    concurrent(good);
    good.reads(last);
    good.end(story::all(last));
    CHECK(good.holds());
    concurrent(turned);
    turned.reads(last == A ? B : A);
    turned.end(story::all(last));
    CHECK_FALSE(turned.holds());
  }
}

// Two looks that overlap the second change only, and a third that says which came last.
TEST_CASE("an_order_that_each_look_alone_would_allow_is_refused_when_together_they_do_not") {
  story on;
  const auto one = on.begin(A);
  const auto other = on.begin(B);
  on.ends(one);
  on.ends(other);
  const auto third = on.begin(C);
  on.reads(A);
  CHECK(on.holds());
  on.reads(C);
  on.reads(A);  // C is still under way
  CHECK(on.holds());
  on.reads(B);
  CHECK_FALSE(on.holds());
  on.ends(third);
}

TEST_CASE("a_change_that_failed_may_have_happened_or_not_but_not_both") {
  for (const std::byte seen : {zero, A}) {
    story on;
    on.fails(on.begin(A));
    on.reads(seen);
    on.reads(seen);
    CHECK(on.holds());
    on.reads(seen == A ? zero : A);
    CHECK_FALSE(on.holds());
  }
}

TEST_CASE("a_change_that_failed_does_not_happen_after_it_was_answered") {
  story on;
  on.fails(on.begin(A));
  on.writes(B);
  on.reads(A);
  CHECK_FALSE(on.holds());
}

TEST_CASE("a_change_that_was_never_answered_may_happen_at_any_time") {
  story on;
  (void)on.begin(A);
  on.writes(B);
  on.reads(B);
  on.reads(A);
  CHECK(on.holds());
}

TEST_CASE("a_change_that_was_fenced_comes_before_those_that_follow") {
  for (const bool is_fenced : {false, true}) {
    story on, late;
    for (story* each : {&on, &late}) {
      const auto left_behind = each->begin(A);
      if (is_fenced) each->fence_change(left_behind);
    }
    // It may still come, where nothing else is.
    on.reads(zero);
    on.reads(A);
    CHECK(on.holds());
    late.writes(B);
    late.reads(B);
    late.reads(A);
    CHECK(late.holds() == !is_fenced);
  }
}

TEST_CASE("a_change_that_was_put_behind_another_comes_after_it") {
  for (const bool is_behind : {false, true}) {
    story on;
    const auto left_behind = on.begin(A);
    const auto next = on.begin(B);
    if (is_behind) on.put_behind(next, {left_behind});
    on.ends(next);
    on.reads(B);
    CHECK(on.holds());
    on.reads(A);
    CHECK(on.holds() == !is_behind);
  }
}

TEST_CASE("a_trim_keeps_or_drops_each_byte_for_good") {
  for (const std::byte seen : {A, zero, dropped, B}) {
    story on;
    on.writes(A);
    on.end_change(on.begin_trim(0, disk, dropped), true);
    on.reads(seen);
    CHECK(on.holds() == (seen != B));
  }
  story back;
  back.writes(A);
  back.end_change(back.begin_trim(0, disk, dropped), true);
  back.reads(zero);
  back.reads(A);
  CHECK_FALSE(back.holds());
}

TEST_CASE("a_neighbours_bytes_are_not_a_changes_business") {
  story on;
  on.writes(A);
  on.end_change(on.begin_change(2, 3, B), true);
  byte_vector image = story::all(A);
  image[2] = image[3] = image[4] = B;
  on.end(image);
  CHECK(on.holds());
  story lost;
  lost.writes(A);
  lost.end_change(lost.begin_change(2, 3, B), true);
  image[5] = zero;  // an old edge, written back
  lost.end(image);
  CHECK_FALSE(lost.holds());
  CHECK(lost.contradiction().find("byte 5 has no explanation") == 0);
}

// --- Power cuts

TEST_CASE("what_was_flushed_survives_a_power_cut") {
  for (const std::byte left : {zero, A, B}) {
    story on;
    on.writes(A);
    on.flushes();
    on.writes(B);
    on.is_cut_to(left);
    CHECK(on.holds() == (left != zero));
  }
}

TEST_CASE("a_flush_covers_only_what_was_answered_before_it_was_asked_for") {
  story on;
  const auto flush = on.begin_flush();
  on.writes(A);
  on.end_flush(flush, true);
  on.is_cut_to(zero);
  CHECK(on.holds());
}

TEST_CASE("a_flush_that_failed_or_is_under_way_promises_nothing") {
  story failed, waiting;
  failed.writes(A);
  failed.end_flush(failed.begin_flush(), false);
  failed.is_cut_to(zero);
  CHECK(failed.holds());
  waiting.writes(A);
  const auto flush = waiting.begin_flush();
  waiting.is_cut_to(zero);
  waiting.end_flush(flush, true);
  CHECK(waiting.holds());
  waiting.is_cut_to(zero);
  CHECK_FALSE(waiting.holds());
}

// --- Syncs that fail: clients have the numbers 0 and 1, and all changes are those of 0

TEST_CASE("what_a_failed_sync_lost_is_there_again_for_nobody_who_was_told") {
  story told, not_told, another_was, flushed_before, written_after;
  for (story* each : {&told, &not_told, &another_was, &flushed_before}) {
    each->writes(A);
    if (each == &flushed_before) each->flushes(1);
    each->fail_sync();
    if (each == &told) each->tell_of_failed_syncs(0);
    if (each == &another_was) each->tell_of_failed_syncs(1);
    each->flushes();
    each->is_cut_to(zero);
    CHECK(each->holds() == (each == &told));
  }
  written_after.fail_sync();
  written_after.tell_of_failed_syncs(0);
  written_after.writes(A);
  written_after.flushes();
  written_after.is_cut_to(zero);
  CHECK_FALSE(written_after.holds());
}

TEST_CASE("the_flush_of_another_client_says_nothing_of_what_a_failed_sync_lost") {
  for (const std::size_t by : {0U, 1U}) {
    story before, meanwhile;
    before.writes(A);
    before.fail_sync();
    before.flushes(by);
    before.is_cut_to(zero);
    CHECK(before.holds() == (by == 1));
    meanwhile.writes(A);
    const auto flush = meanwhile.begin_flush(by);
    meanwhile.fail_sync();
    meanwhile.end_flush(flush, true);
    meanwhile.is_cut_to(zero);
    CHECK(meanwhile.holds() == (by == 1));
  }
}

TEST_CASE("what_is_under_way_when_a_client_is_told_may_be_lost_as_well") {
  for (const bool is_told : {false, true}) {
    story on;
    const auto change = on.begin(A);
    on.fail_sync();
    if (is_told) on.tell_of_failed_syncs(0);
    on.ends(change);
    on.flushes();
    on.is_cut_to(zero);
    CHECK(on.holds() == is_told);
  }
}

TEST_CASE("a_failed_sync_takes_nothing_that_was_durable_and_no_later_telling_does") {
  for (const bool is_durable : {false, true}) {
    story on;
    on.writes(A, is_durable);
    on.flushes();
    on.fail_sync();
    on.tell_of_failed_syncs(0);
    on.writes(B);
    on.is_cut_to(A);
    CHECK(on.holds());
    on.is_cut_to(zero);
    CHECK_FALSE(on.holds());
  }
}

// --- Durable changes

TEST_CASE("a_durable_change_survives_a_power_cut_and_takes_nothing_with_it") {
  story on;
  on.writes(A, true);
  on.is_cut_to(A);
  CHECK(on.holds());
  on.is_cut_to(zero);
  CHECK_FALSE(on.holds());
  story beside;
  beside.end_change(beside.begin_change(0, 4, A), true);
  beside.end_change(beside.begin_change(4, 4, B, true), true);
  byte_vector left = story::all(zero);
  std::fill(left.begin() + 4, left.end(), B);
  beside.is_cut_to(zero);
  CHECK_FALSE(beside.holds());
  story kept;
  kept.end_change(kept.begin_change(0, 4, A), true);
  kept.end_change(kept.begin_change(4, 4, B, true), true);
  kept.cut_power(left);
  CHECK(kept.holds());
}

TEST_CASE("a_power_cut_and_a_look_see_one_order") {
  const auto concurrent_and_flushed = [](story& on) {
    const auto one = on.begin(A);
    const auto other = on.begin(B);
    on.ends(one);
    on.ends(other);
    on.flushes();
  };
  story good, turned;
  concurrent_and_flushed(good);
  good.reads(A);
  good.is_cut_to(A);
  CHECK(good.holds());
  concurrent_and_flushed(turned);
  turned.reads(A);
  turned.is_cut_to(B);
  CHECK_FALSE(turned.holds());
}

TEST_CASE("many_changes_at_once_are_decided_all_the_same") {
  story on;
  std::vector<std::size_t> open;
  for (int i = 1; i <= 10; ++i) open.push_back(on.begin(static_cast<std::byte>(i)));
  for (const std::size_t each : open) on.ends(each);
  on.reads(static_cast<std::byte>(4));
  on.is_cut_to(static_cast<std::byte>(9));
  CHECK(on.holds());
  on.reads(static_cast<std::byte>(5));
  CHECK_FALSE(on.holds());
}
