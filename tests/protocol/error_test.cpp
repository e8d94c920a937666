#include "protocol/error.hpp"

#include <cerrno>
#include <future>
#include <set>
#include <string>

#include "tests/support/catch.hpp"

using namespace aionbd::protocol;

namespace {

std::error_code system_error(int value) {
  return {value, std::system_category()};
}

}  // namespace

TEST_CASE("rule 26: system_errors_become_errors_of_the_specifications_list") {
  struct row {
    int from;
    error to;
  };
  const row rows[] = {
      {0, error::none},
      {EPERM, error::eperm},
      {EACCES, error::eperm},
      {EROFS, error::eperm},
      {EIO, error::eio},
      {ENOMEM, error::enomem},
      {ENOSPC, error::enospc},
      {EDQUOT, error::enospc},
      {EFBIG, error::enospc},
      {EINVAL, error::eio},
      {EOPNOTSUPP, error::enotsup},
      {ENOTSUP, error::enotsup},
      {EBADF, error::eio},
      {ESHUTDOWN, error::eshutdown},
      {EOVERFLOW, error::eio},
      {EREMOTEIO, error::eio},
      {ETIMEDOUT, error::eio},
      {ENOMEDIUM, error::eio},
  };
  for (const row& each : rows) {
    CAPTURE(each.from);
    CHECK(to_nbd_error(system_error(each.from)) == each.to);
    CHECK(to_nbd_error({each.from, std::generic_category()}) == each.to);
  }
}

TEST_CASE("rule 26: every_number_maps_to_an_error_that_has_a_name") {
  for (int value = -1; value < 200; ++value) {
    CAPTURE(value);
    CHECK(to_string(to_nbd_error(system_error(value))) != "unknown");
    CHECK((to_nbd_error(system_error(value)) == error::none) == (value == 0));
  }
}

TEST_CASE("errors_of_foreign_categories_are_eio") {
  CHECK(to_nbd_error(protocol_errc::bad_magic) == error::eio);
  CHECK(to_nbd_error(std::make_error_code(std::future_errc::no_state)) == error::eio);
}

TEST_CASE("a_foreign_category_that_knows_its_errno_is_heard") {
  struct disk_category final : std::error_category {
    const char* name() const noexcept override { return "disk"; }
    std::string message(int) const override { return "disk full"; }
    std::error_condition default_error_condition(int) const noexcept override {
      return std::errc::no_space_on_device;
    }
  };
  static const disk_category disk;
  CHECK(to_nbd_error({1, disk}) == error::enospc);
}

TEST_CASE("every_protocol_error_has_a_message_of_its_own") {
  std::set<std::string> seen;
  for (int value = static_cast<int>(protocol_errc::bad_magic);
       value <= static_cast<int>(protocol_errc::export_name_without_tls); ++value) {
    const std::error_code code = static_cast<protocol_errc>(value);
    CHECK(code);
    CHECK(code.message() != "unknown protocol error");
    CHECK(seen.insert(code.message()).second);
  }
  CHECK(std::error_code(99, protocol_category()).message() == "unknown protocol error");
  CHECK(std::string(protocol_category().name()) == "nbd protocol");
}
