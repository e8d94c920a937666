#include "server/failure_log.hpp"

#include <chrono>
#include <thread>

#include "server/rare_line.hpp"
#include "tests/server/log_lines.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;

namespace {

const protocol::request asked{.what = protocol::command::write, .offset = 4096, .length = 512};
const std::error_code disk_full(ENOSPC, std::system_category());

}  // namespace

TEST_CASE("the_true_error_is_logged_with_the_peer_and_the_request") {
  const tests::log_lines log;
  server::failure_log failures("127.0.0.1:4711");
  failures.add(asked, std::error_code(EREMOTEIO, std::system_category()));
  REQUIRE(log.all().size() == 1);
  CHECK(log.all().front() == "error: 127.0.0.1:4711: WRITE of 512 bytes at 4096 failed: Remote I/O error");
}

TEST_CASE("failures_in_quick_succession_are_counted_and_not_logged_each") {
  const tests::log_lines log;
  server::failure_log failures("peer");
  for (int i = 0; i < 1000; ++i) failures.add(asked, disk_full);
  CHECK(log.all().size() == 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  failures.add(asked, disk_full);
  REQUIRE(log.all().size() == 2);
  CHECK(log.count_with("(999 more like it since the last line)") == 1);
}

TEST_CASE("of_lines_that_may_be_said_ten_times_a_second_ten_are_said") {
  server::rare_line lines(10);
  const std::chrono::steady_clock::time_point second{std::chrono::hours(1)};
  for (int i = 0; i < 10; ++i) CHECK(lines.pass(second) == 0U);
  for (int i = 0; i < 5; ++i) CHECK_FALSE(lines.pass(second + server::rare_line::pause / 2));
  CHECK(lines.pass(second + server::rare_line::pause) == 5U);
  CHECK(lines.pass(second + server::rare_line::pause) == 0U);
}

TEST_CASE("a_refused_fast_zero_is_no_failure_to_log_and_anything_else_is") {
  const tests::log_lines log;
  server::failure_log failures("peer");
  const protocol::request fast{
      .what = protocol::command::write_zeroes, .flags = protocol::command_flag::fast_zero, .length = 512};
  const auto unsupported = std::make_error_code(std::errc::operation_not_supported);
  failures.add(fast, unsupported);
  CHECK(log.all().empty());
  failures.add(asked, unsupported);
  CHECK(log.count_with("WRITE of 512 bytes at 4096 failed: Operation not supported") == 1);
}
