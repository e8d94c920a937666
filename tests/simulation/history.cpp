#include "tests/simulation/history.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace aionbd::tests {

history::history(std::size_t disk_length) : disk_length_(disk_length) {
  changes_.push_back({.length = disk_length, .is_durable = true, .is_certain = true, .began = 0, .ended = 0});
}

std::size_t history::begin_change(std::uint64_t offset, std::uint64_t length, std::byte value, bool durable,
                                  std::size_t by) {
  changes_.push_back(
      {.offset = offset, .length = length, .value = value, .is_durable = durable, .by = by, .began = ++now_});
  return changes_.size() - 1;
}

std::size_t history::begin_trim(std::uint64_t offset, std::uint64_t length, std::byte dropped,
                                std::size_t by) {
  changes_.push_back(
      {.offset = offset, .length = length, .value = dropped, .is_trim = true, .by = by, .began = ++now_});
  return changes_.size() - 1;
}

std::size_t history::begin_look(std::uint64_t offset, std::uint64_t length) {
  looks_.push_back({.offset = offset, .length = length, .seen = {}, .began = ++now_});
  return looks_.size() - 1;
}

std::size_t history::begin_flush(std::size_t by) {
  flushes_.push_back({.by = by, .began = ++now_});
  return flushes_.size() - 1;
}

void history::end_change(std::size_t number, bool succeeded) {
  change& ended = changes_.at(number);
  ended.ended = ++now_;
  ended.is_certain = succeeded && !ended.is_trim;
}

void history::end_look(std::size_t number, byte_vector seen) {
  look& ended = looks_.at(number);
  ended.ended = ++now_;
  ended.seen = std::move(seen);
}

void history::end_flush(std::size_t number, bool succeeded) {
  if (succeeded) flushes_.at(number).ended = ++now_;
}

void history::fence_change(std::size_t number) {
  changes_.at(number).fenced = ++now_;
}

void history::put_behind(std::size_t later, const std::vector<std::size_t>& earlier) {
  changes_.at(later).behind = earlier;
}

void history::fail_sync() {
  failed_syncs_.push_back(++now_);
}

void history::tell_of_failed_syncs(std::size_t client) {
  tellings_.push_back({client, ++now_});
}

void history::cut_power(byte_vector left) {
  looks_.push_back(
      {.length = disk_length_, .seen = std::move(left), .is_after_a_cut = true, .began = ++now_});
  looks_.back().ended = looks_.back().began;
}

void history::end(byte_vector image) {
  const std::size_t last = begin_look(0, disk_length_);
  end_look(last, std::move(image));
}

bool history::has_failed_sync(moment from, moment to) const {
  return std::ranges::any_of(failed_syncs_, [&](moment each) { return from < each && each < to; });
}

bool history::is_told(std::size_t client, moment from, moment to) const {
  return std::ranges::any_of(tellings_, [&](const telling& each) {
    return each.to == client && from < each.when && each.when < to;
  });
}

bool history::makes_durable(const flush& by, const change& made) const {
  if (by.began < made.ended || by.ended == never) return false;
  if (!has_failed_sync(made.began, by.ended)) return true;
  return by.by == made.by && !is_told(made.by, made.began, by.ended);
}

// From when on a look cannot see anything older than this change.
history::moment history::counts_from(const change& made, const look& by) const {
  if (!by.is_after_a_cut || made.ended == never) return made.ended;
  moment durable = made.is_durable && made.is_certain ? made.ended : never;
  for (const flush& each : flushes_) {
    if (makes_durable(each, made)) durable = std::min(durable, each.ended);
  }
  return durable;
}

// All that happened to one byte, and the search for an order that explains it. Sets of changes and of looks
// are the bits of a number.
class history::byte_history {
 public:
  byte_history(const history& all, std::uint64_t begin, std::uint64_t end) {
    const auto is_about = [&](const auto& each) {
      return each.offset <= begin && end <= each.offset + each.length;
    };
    for (const change& each : all.changes_) {
      if (is_about(each)) changes_.push_back(&each);
    }
    for (const look& each : all.looks_) {
      if (!each.seen.empty() && is_about(each)) looks_.push_back(&each);
    }
    if (changes_.size() > 64 || looks_.size() > 64) throw std::length_error("too much for one byte");
    for (const change* const later : changes_) {
      before_.push_back(which([&](const change& each) {
        const auto number = static_cast<std::size_t>(&each - all.changes_.data());
        return std::min(each.ended, each.fenced) < later->began ||
               std::ranges::find(later->behind, number) != later->behind.end();
      }));
    }
    certain_ = which([](const change& each) { return each.is_certain; });
    for (const look* const each : looks_) {
      covered_by_.push_back(
          which([&](const change& made) { return all.counts_from(made, *each) < each->began; }));
      begun_before_end_.push_back(which([&](const change& made) { return made.began < each->ended; }));
    }
  }

  // The bytes from `begin` to `end`: every look has seen the same at each of them.
  bool are_seen_alike(std::uint64_t begin, std::uint64_t end) const {
    return std::ranges::all_of(looks_, [&](const look* each) {
      const std::byte* const seen = &each->seen[begin - each->offset];
      return std::memcmp(seen, seen + 1, end - begin - 1) == 0;
    });
  }

  // What each look saw of that byte.
  std::vector<std::byte> seen_at(std::uint64_t offset) const {
    std::vector<std::byte> seen;
    for (const look* const each : looks_) seen.push_back(each->seen[offset - each->offset]);
    return seen;
  }

  bool explains(const std::vector<std::byte>& seen) {
    may_see_.clear();
    for (std::size_t i = 0; i < looks_.size(); ++i) {
      may_see_.push_back(begun_before_end_[i] & which([&](const change& made) {
                           return made.value == seen[i] || (made.is_trim && seen[i] == std::byte{0});
                         }));
    }
    tried_.clear();
    return explain(0, 0, 0);
  }

 private:
  using set = std::uint64_t;
  static set bit(std::size_t number) { return set{1} << number; }
  static set all_of(std::size_t count) { return count == 64 ? ~set{0} : bit(count) - 1; }

  template <typename Condition>
  set which(Condition condition) const {
    set found = 0;
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      if (condition(*changes_[i])) found |= bit(i);
    }
    return found;
  }

  // `placed`: the order so far. `left_out`: did not happen to this byte. `explained`: looks that are.
  bool explain(set placed, set left_out, set explained) {
    const set decided = placed | left_out;
    if (explained == all_of(looks_.size())) return true;
    if (!is_hopeful(decided, explained) || !tried_.emplace(placed, left_out, explained).second) return false;
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      if ((decided & bit(i)) != 0 || (before_[i] & ~decided) != 0) continue;
      const set now = explained | explained_by(i, decided | bit(i));
      if (explain(placed | bit(i), left_out, now)) return true;
    }
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      if (((certain_ | decided) & bit(i)) != 0) continue;
      if (explain(placed, left_out | bit(i), explained)) return true;
    }
    return false;
  }

  // Each look that is not explained has a change left that it may have seen.
  bool is_hopeful(set decided, set explained) const {
    for (std::size_t i = 0; i < looks_.size(); ++i) {
      if ((explained & bit(i)) == 0 && (may_see_[i] & ~decided) == 0) return false;
    }
    return true;
  }

  // The looks that may have seen the change just placed: those for which nothing that covers it is to come.
  set explained_by(std::size_t latest, set decided) const {
    set found = 0;
    for (std::size_t i = 0; i < looks_.size(); ++i) {
      if ((may_see_[i] & bit(latest)) != 0 && (covered_by_[i] & ~decided) == 0) found |= bit(i);
    }
    return found;
  }

  std::vector<const change*> changes_;
  std::vector<const look*> looks_;
  std::vector<set> before_;            // of each change: those that come first
  std::vector<set> covered_by_;        // of each look: those that nothing older is seen behind
  std::vector<set> begun_before_end_;  // of each look
  std::vector<set> may_see_;           // of each look
  set certain_ = 0;
  std::set<std::tuple<set, set, set>> tried_;
};

// Where anything begins or ends: between two of them, all bytes have the same changes and looks.
std::vector<std::uint64_t> history::borders() const {
  std::set<std::uint64_t> found;
  const auto add = [&](const auto& each) {
    found.insert(each.offset);
    found.insert(each.offset + each.length);
  };
  std::ranges::for_each(changes_, add);
  std::ranges::for_each(looks_, add);
  return {found.begin(), found.end()};
}

std::string history::contradiction() const {
  const auto all = borders();
  for (std::size_t i = 1; i < all.size(); ++i) {
    std::string found = contradiction_between(all[i - 1], all[i]);
    if (!found.empty()) return found;
  }
  return {};
}

std::string history::contradiction_between(std::uint64_t begin, std::uint64_t end) const {
  byte_history here(*this, begin, end);
  std::set<std::vector<std::byte>> known;  // to have an explanation: most bytes were seen alike
  if (here.are_seen_alike(begin, end)) end = begin + 1;
  for (std::uint64_t at = begin; at < end; ++at) {
    const auto [seen, is_new] = known.insert(here.seen_at(at));
    if (is_new && !here.explains(*seen)) return story_of(at);
  }
  return {};
}

std::string history::story_of(std::uint64_t offset) const {
  const auto is_about = [&](const auto& each) {
    return each.offset <= offset && offset < each.offset + each.length;
  };
  const auto text = [](std::byte value) { return std::to_string(std::to_integer<int>(value)); };
  const auto when = [](moment began, moment ended) {
    const std::string end = ended == never ? "never" : std::to_string(ended);
    return " from " + std::to_string(began) + " to " + end;
  };
  std::multimap<moment, std::string> lines;
  for (const change& each : changes_) {
    if (!is_about(each)) continue;
    std::string line =
        (each.is_trim ? "trim to " : "change to ") + text(each.value) + when(each.began, each.ended);
    if (each.is_durable) line += ", durable";
    if (!each.is_certain && !each.is_trim) line += ", failed or not answered";
    if (each.by != 0) line += ", by client " + std::to_string(each.by);
    if (each.fenced != never) line += ", fenced at " + std::to_string(each.fenced);
    lines.emplace(each.began, std::move(line));
  }
  for (const look& each : looks_) {
    if (!is_about(each) || each.seen.empty()) continue;
    const std::string who = each.is_after_a_cut ? "a power cut leaves " : "a look sees ";
    lines.emplace(each.began, who + text(each.seen[offset - each.offset]) + when(each.began, each.ended));
  }
  for (const flush& each : flushes_) {
    if (each.ended == never) continue;
    const std::string by = each.by != 0 ? " by client " + std::to_string(each.by) : "";
    lines.emplace(each.began, "flush" + by + when(each.began, each.ended));
  }
  for (const moment each : failed_syncs_) lines.emplace(each, "a sync fails at " + std::to_string(each));
  for (const auto& [to, told] : tellings_) {
    lines.emplace(told, "client " + std::to_string(to) + " is told of it at " + std::to_string(told));
  }
  std::string story = "byte " + std::to_string(offset) + " has no explanation:";
  for (const auto& [began, line] : lines) story += "\n  " + line;
  return story;
}

}  // namespace aionbd::tests
