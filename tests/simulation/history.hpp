// What clients asked of one disk and what they were told, as seen from outside, and whether it can be
// explained.
//
// The rule, for each byte by itself: there is one order of all changes to it, in which a change that was
// answered before another was asked for comes first; and whoever looks at the byte sees a change that was
// asked for before the look ended, and after which no change comes that was answered before the look began.
//
//   asked     answered
//     |-- write 1 --|                             Either order of these two will do, but it is one order:
//           |---- write 2 ----|                   whoever looks from here on sees the same of them ...
//                |-- look --|                     ... while this one may see the zeroes of before, 1, or 2.
//
// A power cut is a look as well, at what is left. There a change only counts as answered once it is durable:
// it was itself (FUA), or a flush that was asked for after its answer was answered before the cut. A change
// that failed, or was never answered, may have happened to any of its bytes, or not. So may a trim.
//
// A sync that fails may lose what is not durable by then, and no later flush brings it back. So a flush makes
// a change durable only if no sync has failed since the change was asked for; or, if one has, when it is a
// flush of the client that asked for the change, and that client was told of no failure since then: in that
// case the flush says that nothing of the client's own is lost.
//
// A client that hangs up leaves changes behind that are never answered. They come before all that it changes
// by its next connections and, from the moment when the first answer came to one of these, before whatever is
// changed by anybody.
//
// Nothing here knows how the server works; what it promises beyond the protocol (that writes take effect in
// the order of their arrival, say) is not asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "tests/protocol/bytes.hpp"

namespace aionbd::tests {

class history {
 public:
  using moment = std::uint64_t;

  explicit history(std::size_t disk_length);  // zeroes

  // Each returns a number for its end. All bytes of a change are the same; values that differ from change to
  // change tell more. `by` is the number of a client, and matters only where syncs fail.
  std::size_t begin_change(std::uint64_t offset, std::uint64_t length, std::byte value, bool durable = false,
                           std::size_t by = 0);
  // The bytes become zeroes, or `dropped`, or stay.
  std::size_t begin_trim(std::uint64_t offset, std::uint64_t length, std::byte dropped, std::size_t by = 0);
  std::size_t begin_look(std::uint64_t offset, std::uint64_t length);
  std::size_t begin_flush(std::size_t by = 0);

  void end_change(std::size_t number, bool succeeded);
  void end_look(std::size_t number, byte_vector seen);
  void end_flush(std::size_t number, bool succeeded);

  // No change that is asked for from now on is overtaken by this one, which is not answered. Looks may still
  // see it come.
  void fence_change(std::size_t number);
  // These come before that one, whatever was answered when.
  void put_behind(std::size_t later, const std::vector<std::size_t>& earlier);

  void fail_sync();
  // The client hears that a sync has failed, or it cannot be asked any more that it does.
  void tell_of_failed_syncs(std::size_t client);

  // What would be there if the power went now, and what is there after everything.
  void cut_power(byte_vector left);
  void end(byte_vector image);

  // Empty if there is an explanation; else a byte that has none, with everything that happened to it.
  std::string contradiction() const;

 private:
  static constexpr moment never = std::numeric_limits<moment>::max();
  struct change {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::byte value{};
    bool is_trim = false;
    bool is_durable = false;
    bool is_certain = false;  // it happened, to all of its bytes
    std::size_t by = 0;
    moment began = 0;
    moment ended = never;
    moment fenced = never;
    std::vector<std::size_t> behind{};  // others, by number
  };
  struct look {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    byte_vector seen;  // empty while it has not ended
    bool is_after_a_cut = false;
    moment began = 0;
    moment ended = never;
  };
  struct flush {
    std::size_t by = 0;
    moment began = 0;
    moment ended = never;
  };
  struct telling {
    std::size_t to = 0;
    moment when = 0;
  };
  class byte_history;

  bool has_failed_sync(moment from, moment to) const;
  bool is_told(std::size_t client, moment from, moment to) const;
  bool makes_durable(const flush& by, const change& made) const;
  moment counts_from(const change& made, const look& by) const;
  std::vector<std::uint64_t> borders() const;
  std::string contradiction_between(std::uint64_t begin, std::uint64_t end) const;
  std::string story_of(std::uint64_t offset) const;

  std::size_t disk_length_;
  moment now_ = 1;
  std::vector<change> changes_;  // the first is the zeroes of a new disk
  std::vector<look> looks_;
  std::vector<flush> flushes_;  // those that succeeded have an end
  std::vector<moment> failed_syncs_;
  std::vector<telling> tellings_;
};

}  // namespace aionbd::tests
