// The request parser: decode and validate, as a session does for each request in a received batch.
#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "protocol/requests.hpp"
#include "protocol/terms.hpp"

namespace {

using aionbd::protocol::command;
using aionbd::protocol::error;
using aionbd::protocol::export_info;
using aionbd::protocol::reply_mode;
using aionbd::protocol::request;
using aionbd::protocol::terms;
namespace protocol = aionbd::protocol;

constexpr std::size_t batch = 32;

export_info disk() {
  export_info served;
  served.size = std::uint64_t{1} << 40;
  served.flags |= protocol::transmission_flag::send_flush | protocol::transmission_flag::send_fua |
                  protocol::transmission_flag::send_trim | protocol::transmission_flag::send_write_zeroes;
  return served;
}

request nth(std::size_t n, command what) {
  return {.what = what, .cookie = n, .offset = n * 40960, .length = what == command::flush ? 0U : 4096U};
}

// A receive buffer full of requests; none of them carries a payload, for the parser never looks at one.
std::vector<std::byte> received(std::span<const command> commands, reply_mode mode) {
  const std::size_t each = protocol::request_header_size(mode);
  std::vector<std::byte> bytes(batch * each);
  for (std::size_t i = 0; i < batch; ++i)
    protocol::encode_request(std::span(bytes).subspan(i * each, each), nth(i, commands[i % commands.size()]),
                             mode);
  return bytes;
}

void parse(benchmark::State& state, std::span<const command> commands, reply_mode mode) {
  const export_info served = disk();
  terms agreed;
  agreed.chosen = &served;
  agreed.replies = mode;
  const std::vector<std::byte> bytes = received(commands, mode);
  const std::size_t each = protocol::request_header_size(mode);
  for (auto _ : state) {
    for (std::size_t at = 0; at < bytes.size(); at += each) {
      auto parsed = protocol::decode_request(std::span(bytes).subspan(at, each), mode);
      if (!parsed || protocol::validate(*parsed, agreed) != error::none) {
        state.SkipWithError("a valid request was refused");
        return;
      }
      benchmark::DoNotOptimize(parsed);
      benchmark::DoNotOptimize(protocol::payload_length(*parsed, mode));
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(batch));
}

constexpr command reads[] = {command::read};
constexpr command all[] = {command::read, command::write, command::flush, command::trim,
                           command::write_zeroes};

void parse_read(benchmark::State& state) {
  parse(state, reads, reply_mode::simple);
}
void parse_any_command(benchmark::State& state) {
  parse(state, all, reply_mode::simple);
}
void parse_extended_read(benchmark::State& state) {
  parse(state, reads, reply_mode::extended);
}

void refuse_a_read_past_the_end(benchmark::State& state) {
  const export_info served = disk();
  terms agreed;
  agreed.chosen = &served;
  request beyond = nth(0, command::read);
  beyond.offset = served.size - 1;
  for (auto _ : state) {
    benchmark::DoNotOptimize(beyond);
    benchmark::DoNotOptimize(protocol::validate(beyond, agreed));
  }
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK(parse_read);
BENCHMARK(parse_any_command);
BENCHMARK(parse_extended_read);
BENCHMARK(refuse_a_read_past_the_end);

}  // namespace
