#include "server/exports.hpp"

#include "tests/server/temporary_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
namespace flag = protocol::transmission_flag;

namespace {

storage::geometry usual() {
  return {.size = 10'000, .direct_end = 8192, .alignment = 512};
}

std::uint16_t flags_of(const storage::geometry& shape) {
  return server::describe("", "", shape).flags;
}

constexpr std::uint16_t for_everyone = flag::has_flags | flag::send_flush | flag::can_multi_conn;
constexpr std::uint16_t for_writers =
    for_everyone | flag::send_fua | flag::send_trim | flag::send_write_zeroes | flag::send_fast_zero;

}  // namespace

TEST_CASE("flush_fua_trim_zeroes_and_multi_conn_are_on_for_every_writable_export") {
  CHECK(flags_of(usual()) == for_writers);
}

TEST_CASE("a_read_only_export_says_so_and_offers_no_changes") {
  auto shape = usual();
  shape.read_only = true;
  CHECK(flags_of(shape) == (for_everyone | flag::read_only));
}

TEST_CASE("a_rotating_disk_is_said_to_be_one") {
  auto shape = usual();
  shape.rotational = true;
  CHECK(flags_of(shape) == (for_writers | flag::rotational));
  shape.read_only = true;
  CHECK(flags_of(shape) == (for_everyone | flag::read_only | flag::rotational));
}

// What the file system cannot do is done by writing, so the flags stay.
TEST_CASE("the_ways_to_zero_do_not_change_the_flags") {
  auto shape = usual();
  for (bool storage::geometry::*const ability :
       {&storage::geometry::can_punch_hole, &storage::geometry::can_zero_range,
        &storage::geometry::can_discard, &storage::geometry::is_block_device}) {
    shape.*ability = true;
    CHECK(flags_of(shape) == for_writers);
  }
}

TEST_CASE("name_description_and_size_are_the_exports") {
  const auto info = server::describe("a name", "about it", usual());
  CHECK(info.name == "a name");
  CHECK(info.description == "about it");
  CHECK(info.size == 10'000);
}

TEST_CASE("the_preferred_block_size_is_the_largest_of_4096_and_what_the_file_likes") {
  struct {
    std::uint32_t preferred_io, alignment, expected;
  } const rows[] = {{512, 512, 4096},       {4096, 512, 4096},     {8192, 512, 8192},
                    {65'536, 4096, 65'536}, {512, 65'536, 65'536}, {1U << 20, 512, 1U << 20}};
  for (const auto& row : rows) {
    auto shape = usual();
    shape.preferred_io = row.preferred_io;
    shape.alignment = row.alignment;
    const auto info = server::describe("", "", shape);
    CAPTURE(row.preferred_io, row.alignment);
    CHECK(info.block_size_preferred == row.expected);
    CHECK(info.block_size_min == 1);
    CHECK(info.block_size_max == 32U << 20);
  }
}

TEST_CASE("each_export_has_the_device_of_its_own_file") {
  const tests::temporary_folder folder;
  server::exports served;
  for (const std::uint64_t size : {8192U, 20'000U, 4096U}) {
    const auto path = folder.path_of(std::to_string(size));
    tests::make_sparse_file(path, size);
    const auto& file =
        served.add(std::to_string(size), "", storage::block_file::open({.path = path, .create_size = {}}));
    CHECK(file.path() == path);
  }
  REQUIRE(served.infos().size() == 3);
  for (const auto& info : served.infos()) {
    CHECK(info.name == std::to_string(info.size));
    CHECK(served.device_of(info).shape().size == info.size);
  }
}

TEST_CASE("a_device_is_not_found_by_a_description_that_is_not_among_the_exports") {
  server::exports served;
  const protocol::export_info foreign;
  CHECK_THROWS(served.device_of(foreign));
}
