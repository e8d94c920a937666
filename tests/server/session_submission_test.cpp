// The kernel refuses, or takes fewer than it was offered, at the n-th submission of a whole session, each in
// a run of its own.
#include <algorithm>
#include <cerrno>
#include <set>

#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

struct io_context;
struct iocb;
extern "C" int io_submit(io_context* context, long count, iocb** blocks);

using namespace aionbd;
using namespace aionbd::tests;

namespace {

// One at a time, as a function pointer knows nothing.
struct disturbance {
  std::size_t calls_before = 0;
  int result = 0;  // 1: takes the first of those offered
  std::size_t times = 1;
} due;

int disturbed_submit(io_context* context, long count, iocb** blocks) {
  if (due.calls_before != 0) {
    --due.calls_before;
  } else if (due.times != 0) {
    --due.times;
    return due.result == 1 ? ::io_submit(context, 1, blocks) : due.result;
  }
  return ::io_submit(context, count, blocks);
}

// Requests of every kind, some of which take several operations; each its own blocks but for the last.
byte_vector everything() {
  packet all;
  all.append(write_request(1, 0, byte_vector(4096, std::byte{1})));
  all.append(write_request(2, 8192 + 100, byte_vector(3000, std::byte{2})));
  all.append(write_request(3, 16'384, byte_vector(4096, std::byte{3}), nbd::fua));
  all.append(read_request(4, 512 * KiB, 70'000));
  all.append(read_request(5, 700'001, 3));
  all.append(request(nbd::flush, 6));
  all.append(request(nbd::write_zeroes, 7, 32'768 + 5, 9000));
  all.append(request(nbd::trim, 8, 65'536, 65'536, nbd::fua));
  for (std::uint64_t cookie = 9; cookie < 20; ++cookie) {
    all.append(write_request(cookie, 300 * KiB + cookie * 512, byte_vector(512, std::byte{9})));
  }
  return all;
}

std::map<std::uint64_t, std::size_t> replies() {
  std::map<std::uint64_t, std::size_t> all;
  for (std::uint64_t cookie = 1; cookie < 20; ++cookie) all[cookie] = 0;
  all[4] = 70'000;
  all[5] = 3;
  return all;
}

bool is_durable(std::uint64_t cookie) {
  return cookie == 3 || cookie == 6 || cookie == 8;
}

// The requests that failed; nothing when there was no n-th submission.
std::optional<std::map<std::uint64_t, std::uint32_t>> failures_of_session(std::size_t n, int result,
                                                                          std::size_t times = 1) {
  due = {.calls_before = n, .result = result, .times = times};
  served_loop on({.submit = &disturbed_submit});
  std::map<std::uint64_t, std::uint32_t> failed;
  {
    served_session with(on);
    with.peer.send(everything());
    for (const auto& [cookie, reply] : with.peer.receive_replies(replies())) {
      if (reply.error != nbd::ok) failed[cookie] = reply.error;
    }
    const bool happened = due.times != times;
    due.times = 0;
    // Whatever it was, it is over; and a failed sync has been heard of.
    with.peer.send(request(nbd::flush, 100));
    with.peer.receive(reply_size);
    with.peer.send(write_request(101, 0, byte_vector(4096, std::byte{1}), nbd::fua));
    CHECK(with.peer.receive(reply_size) == simple_reply(101));
    with.peer.send(disconnect());
    CHECK_FALSE(with.why());
    CHECK(on.loop.buffers.buffers_out() == 0);
    CHECK(on.loop.aio.outstanding() == 0);
    if (!happened) return std::nullopt;
  }
  return failed;
}

}  // namespace

TEST_CASE("submissions_that_are_put_off_or_taken_in_part_are_carried_out_all_the_same") {
  const int result = GENERATE(0, 1, -EAGAIN, -EINTR);
  const std::size_t times = GENERATE(1U, 3U);
  std::size_t n = 0;
  for (;; ++n) {
    CAPTURE(n, result, times);
    const auto failed = failures_of_session(n, result, times);
    if (!failed) break;
    REQUIRE(failed->empty());
  }
  CHECK(n > 3);
}

TEST_CASE("whichever_submission_is_refused_one_request_gets_the_error_and_no_other") {
  const int error = GENERATE(EINVAL, EIO, ENOMEM, EBADF);
  std::size_t n = 0;
  for (;; ++n) {
    CAPTURE(n, error);
    auto failed = failures_of_session(n, -error);
    if (!failed) break;
    REQUIRE_FALSE(failed->empty());
    for (const auto& [cookie, told] : *failed) REQUIRE(told == (error == ENOMEM ? nbd::enomem : nbd::eio));
    // A sync that was refused, or a durable write, is a failed sync, which other durable requests hear of.
    const bool is_sync =
        std::ranges::all_of(*failed, [](const auto& each) { return is_durable(each.first); });
    REQUIRE((failed->size() == 1 || is_sync));
  }
  CHECK(n > 3);
}
