// Whether clients are told of failed syncs as they were promised, as seen from outside: each connection by
// the next flush or durable change that it asks for, and once; of several failures, one that lost data before
// one for want of room. By a flush all are told as lost data.
//
//   flush 1 |------------------| fails: it may have been the sync's that fails here, or the one that is told.
//                  x a sync fails
//                      flush 2 |---| must fail if flush 1 did not, and must not if it did.
//
// Of a connection it is not known when the server takes it up, nor which of its requests under way was told
// first. So what is kept of each is how many of the failures it has heard of at the least, and at the most.
//
// A client that hangs up and comes back is told, on its next connection, of what it has not heard of, if the
// server knew by then that it had gone, and if nobody else came meanwhile: that one may have been told in its
// place. It may be told of all the rest again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace aionbd::tests {

class failed_syncs {
 public:
  enum class told_by { flush, change };

  // One connection. It may hear of what failed before it came: its client may be one that was lost.
  struct listener {
    std::size_t least = 0;
    std::optional<std::size_t> most{};  // none: it has heard nothing at all
    std::size_t away_until = 0;         // of the failures, those before it was here
  };

  // Now, with this error of the protocol's.
  void fail(std::uint32_t error) { errors_.push_back(error); }
  std::size_t count() const { return errors_.size(); }

  // It was answered, whatever it was: it is known to the server.
  void is_there(listener& by) const {
    if (!by.most) by.most = count();
  }
  // It is lost, and another one will take its place that must hear of what this one has not heard of.
  static void is_away(listener& by) { by.least = 0; }
  // The first answer on its next connection.
  void is_back(listener& by) const {
    by.away_until = count();
    is_there(by);
  }
  // A flush or a durable change was answered that was asked for when so many had failed. Empty, or what is
  // wrong. Answers are judged in the order in which they came.
  [[nodiscard]] std::string judge(listener& by, std::size_t failed_before, std::uint32_t error,
                                  told_by what) const;

 private:
  bool has(std::uint32_t error, std::size_t from, std::size_t to) const;

  std::vector<std::uint32_t> errors_;
};

}  // namespace aionbd::tests
