// Trim and write-zeroes: whole blocks are punched, zeroed or discarded in bounded steps off the loop, and the
// pieces at the edges, or everything where the file system can do nothing better, are written as zeroes.
// Between steps other requests to the same range get their turn.
#pragma once

#include <cstdint>
#include <memory>
#include <system_error>

#include "storage/alignment.hpp"
#include "storage/block_device.hpp"

namespace aionbd::storage {

class zeroing {
 public:
  // One fallocate or discard covers at most this much, so that none holds a range, or a thread, for long.
  static constexpr std::uint64_t step_length_max = std::uint64_t{1} << 30;
  // One write of zeroes, likewise.
  static constexpr std::uint64_t write_length_max = std::uint64_t{1} << 20;

  // Carries out a trim or write_zeroes operation of more than 0 bytes and ends it. Takes memory for one edge
  // at a time, of less than a block of the zeroing granularity and what is put around it.
  static void start(block_device& device, operation& op);

 private:
  enum class method : std::uint8_t { discard, punch_hole, zero_range, write, nothing };

  // What an edge is written from: zeroes, and what the device puts around them.
  struct edge_memory {
    explicit edge_memory(std::size_t size, std::size_t alignment);
    edge_memory(const edge_memory&) = delete;
    edge_memory& operator=(const edge_memory&) = delete;
    ~edge_memory();
    std::byte* data;
    std::size_t alignment;
  };

  zeroing(block_device& device, operation& op);
  method best_method() const;
  void next_step();
  void submit_step(std::uint64_t end);
  static void on_held(operation& op);
  static void on_step_done(io_request& request);
  void refused();
  bool write_edge(std::uint64_t begin, std::uint64_t end);
  void write_zeroes(std::uint64_t begin, std::uint64_t end, std::byte* zeroes);
  static void on_written(operation& write);
  std::uint64_t reached() const;
  void end(std::error_code failure);

  block_device& device_;
  operation& op_;
  const inner_range inner_;  // whole blocks
  method method_;
  std::uint64_t done_until_;  // of inner_
  std::uint64_t step_end_ = 0;
  bool first_edge_done_ = false;
  bool last_edge_done_ = false;
  io_request step_;
  operation write_;
  std::unique_ptr<edge_memory> edge_;
};

}  // namespace aionbd::storage
