#include "tests/simulation/failed_syncs.hpp"

#include <algorithm>

namespace aionbd::tests {

namespace {

constexpr std::uint32_t eio = 5;

}  // namespace

bool failed_syncs::has(std::uint32_t error, std::size_t from, std::size_t to) const {
  for (std::size_t i = from; i < to; ++i) {
    if (errors_[i] == error) return true;
  }
  return false;
}

std::string failed_syncs::judge(listener& by, std::size_t failed_before, std::uint32_t error,
                                told_by what) const {
  is_there(by);
  if (error == 0) {
    if (*by.most < std::min(failed_before, by.away_until)) {
      return "a client that came back was not told of a failed sync";
    }
    if (*by.most < failed_before) return "a connection was not told of a failed sync";
    by.least = std::max(by.least, failed_before);
    return {};
  }
  // Whatever fails while a request is under way may be that request's own.
  const std::size_t from = std::min(by.least, failed_before);
  if (from == count()) {
    return from == 0 ? "a failure without a cause" : "a connection was told of a failed sync twice";
  }
  if (what == told_by::flush && error != eio) return "a flush failed with error " + std::to_string(error);
  if (what == told_by::change && !has(error, from, count())) {
    return "no sync has failed with error " + std::to_string(error);
  }
  if (error != eio && has(eio, *by.most, failed_before))
    return "a connection was not told that data was lost";
  // It was news to the connection, unless somebody else's request of the same sync had been told first.
  by.least = by.least == failed_before ? by.least + 1 : std::max(by.least, failed_before);
  by.most = count();
  return {};
}

}  // namespace aionbd::tests
