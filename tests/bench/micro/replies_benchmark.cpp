// The reply encoder: what stands before the data of a read, and the end of a write, in each mode.
#include <benchmark/benchmark.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "protocol/replies.hpp"

namespace {

using aionbd::protocol::command;
using aionbd::protocol::error;
using aionbd::protocol::reply_mode;
using aionbd::protocol::request;
namespace protocol = aionbd::protocol;

constexpr reply_mode modes[] = {reply_mode::simple, reply_mode::structured, reply_mode::extended};

reply_mode mode_of(const benchmark::State& state) {
  return modes[state.range(0)];
}

void finish(benchmark::State& state) {
  static constexpr const char* names[] = {"simple", "structured", "extended"};
  state.SetLabel(names[state.range(0)]);
  state.SetItemsProcessed(state.iterations());
}

void answer_read(benchmark::State& state) {
  std::array<std::byte, protocol::reply_header_max> head{};
  request asked{.what = command::read, .cookie = 7, .offset = 1 << 20, .length = 4096};
  const reply_mode mode = mode_of(state);
  for (auto _ : state) {
    benchmark::DoNotOptimize(asked);
    benchmark::DoNotOptimize(
        protocol::encode_data_header(head, mode, asked, asked.offset, asked.length, true));
    benchmark::DoNotOptimize(head);
  }
  finish(state);
}

void answer_write(benchmark::State& state) {
  std::array<std::byte, protocol::reply_header_max> head{};
  request asked{.what = command::write, .cookie = 7, .offset = 1 << 20, .length = 4096};
  const reply_mode mode = mode_of(state);
  for (auto _ : state) {
    benchmark::DoNotOptimize(asked);
    benchmark::DoNotOptimize(protocol::encode_done(head, mode, asked));
    benchmark::DoNotOptimize(head);
  }
  finish(state);
}

void answer_with_an_error(benchmark::State& state) {
  std::array<std::byte, protocol::reply_header_max> head{};
  request asked{.what = command::read, .cookie = 7, .offset = 1 << 20, .length = 4096};
  const reply_mode mode = mode_of(state);
  for (auto _ : state) {
    benchmark::DoNotOptimize(asked);
    benchmark::DoNotOptimize(protocol::encode_error(head, mode, asked, error::eio, "the disk said no"));
    benchmark::DoNotOptimize(head);
  }
  finish(state);
}

BENCHMARK(answer_read)->DenseRange(0, 2);
BENCHMARK(answer_write)->DenseRange(0, 2);
BENCHMARK(answer_with_an_error)->DenseRange(0, 2);

}  // namespace
