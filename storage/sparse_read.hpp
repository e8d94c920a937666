// A read that leaves out holes: asks the file system where they are, reads the rest, and says in
// operation::extents which parts were not read because they are zeroes. Not for the hot path: a read of a
// region that is known to be dense never comes here.
#pragma once

#include <cstdint>
#include <system_error>

#include "storage/block_device.hpp"
#include "storage/extents.hpp"

namespace aionbd::storage {

class sparse_read {
 public:
  // Shorter reads are just read: asking costs a change of threads.
  static constexpr std::uint64_t length_min = std::uint64_t{64} << 10;
  // Shorter holes are read with the data around them: each piece has a cost of its own.
  static constexpr std::uint64_t hole_length_min = std::uint64_t{16} << 10;
  // What is looked at beyond the read, so that a pass over dense data asks once for many reads.
  static constexpr std::uint64_t lookahead = std::uint64_t{256} << 20;
  // Of one lookup. What lies behind is taken for data.
  static constexpr std::size_t extents_max = 64;

  // True when asking pays for this read.
  static bool pays_for(const block_device& device, const operation& op);

  // Carries out the read and ends it. Without memory for that, it is just read.
  static void start(block_device& device, operation& op);

 private:
  sparse_read(block_device& device, operation& op) : device_(device), op_(op) {}
  static void on_found(io_request& request);
  void take_found();
  void read_next();
  static void on_piece_read(void* self, std::error_code failure);
  void end(std::error_code failure);

  block_device& device_;
  operation& op_;
  io_request lookup_;
  extent_list found_;       // of the regions around the read
  std::size_t next_ = 0;    // of op_.extents
  std::uint64_t done_ = 0;  // bytes of the payload before that
};

}  // namespace aionbd::storage
