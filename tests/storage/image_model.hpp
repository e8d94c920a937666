// What each byte of a disk may hold while changes to it are under way, from the outside: only from when each
// change was asked for and when it was answered.
//
//   asked          answered
//     |--- write 1 ---|                        Writes take effect in the order they were asked for.
//          |---- write 2 ----|                 Zeroing goes in steps: while it is under way, it and the
//          writes
//     |--------- zeroing --------|             asked for meanwhile take effect in any order.
//                   |--- read ---|             Reads may see any change that is not ruled out: by a later one
//                                              that was answered before the read was asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

namespace aionbd::storage {

class image_model {
 public:
  using time = std::uint64_t;

  enum class kind { write, zeroes, trim };  // a trim may keep what was there

  explicit image_model(std::size_t size);

  // The byte that the change with this number writes.
  static std::byte written(std::size_t change, std::uint64_t offset);

  // A number for the change.
  std::size_t begin_change(kind what, std::uint64_t offset, std::uint64_t length);
  void end_change(std::size_t change);

  // A read, a flush, or the time a durable change takes.
  time begin_look();
  void end_look(time began);

  // Whether a byte looked at since `began` may be so.
  bool may_be(std::uint64_t offset, std::byte value, time began) const;
  // Whether a byte may be so once the change, a durable one, has been answered.
  bool may_be_after(std::uint64_t offset, std::byte value, std::size_t change) const;

  std::size_t size() const { return bytes_.size(); }

 private:
  static constexpr time never = std::numeric_limits<time>::max();
  struct change_record {
    kind what = kind::write;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    time began = 0;
    time ended = never;
  };
  bool is_before(std::size_t one, std::size_t other) const;
  bool is_ruled_out(std::uint64_t offset, std::size_t change, time before) const;
  std::byte value_of(std::size_t change, std::uint64_t offset) const;
  void forget_what_is_ruled_out(std::uint64_t offset);

  time now_ = 1;
  std::multiset<time> looks_;
  std::vector<change_record> changes_;
  std::vector<std::vector<std::size_t>> bytes_;  // for each, the changes it may show
};

}  // namespace aionbd::storage
