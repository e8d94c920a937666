// Extents of real files: in the build directory, whose file system has a map (FIEMAP) on ext4, XFS and btrfs,
// and on the tmpfs of /dev/shm, which has none and is asked with SEEK_HOLE.
#include "storage/extents.hpp"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "storage/file_descriptor.hpp"
#include "tests/storage/loop_disk.hpp"
#include "tests/storage/temporary_file.hpp"
#include "tests/storage/test_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr std::uint64_t kib = 1024, mib = 1024 * kib, gib = 1024 * mib, tib = 1024 * gib;
using enum extent_kind;
using extents = std::vector<extent>;

void write_data(int fd, std::uint64_t offset, std::uint64_t length) {
  const std::vector<char> bytes(length, 'x');
  REQUIRE(::pwrite(fd, bytes.data(), length, static_cast<off_t>(offset)) == static_cast<ssize_t>(length));
}

void change_space(int fd, int mode, std::uint64_t offset, std::uint64_t length) {
  REQUIRE(::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0);
}
void punch(int fd, std::uint64_t offset, std::uint64_t length) {
  change_space(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}
void preallocate(int fd, std::uint64_t offset, std::uint64_t length) {
  change_space(fd, FALLOC_FL_KEEP_SIZE, offset, length);
}

extents find(int fd, std::uint64_t offset, std::uint64_t length, std::size_t count_max = 1024) {
  extent_list found;
  found.count_max = count_max;
  const std::error_code failure = find_extents(fd, offset, length, found);
  INFO(failure.message());
  REQUIRE_FALSE(failure);
  REQUIRE_FALSE(found.items.empty());
  REQUIRE(found.items.size() <= count_max);
  REQUIRE(found.length() <= length);
  for (std::size_t i = 0; i < found.items.size(); ++i) {
    REQUIRE(found.items[i].length != 0);
    if (i != 0) REQUIRE(found.items[i].kind != found.items[i - 1].kind);
  }
  return found.items;
}

// A file of which the map is known, whatever the kind of file system.
file_descriptor file_on_tmpfs(std::uint64_t size) {
  std::string path = "/dev/shm/extents-test-XXXXXX";
  file_descriptor file(::mkostemp(path.data(), O_CLOEXEC));
  if (!file) return file;
  REQUIRE(::unlink(path.c_str()) == 0);
  REQUIRE(::ftruncate(file.get(), static_cast<off_t>(size)) == 0);
  return file;
}

}  // namespace

namespace aionbd::storage {

std::ostream& operator<<(std::ostream& out, const extent& shown) {
  constexpr const char* names[] = {"data", "unwritten", "hole"};
  return out << shown.length << " " << names[static_cast<int>(shown.kind)];
}

}  // namespace aionbd::storage

TEST_CASE("a_list_of_extents_joins_equal_neighbours") {
  extent_list list;
  CHECK(list.append(100, hole));
  CHECK(list.append(20, hole));
  CHECK(list.append(3, data));
  CHECK(list.append(4, hole));
  CHECK(list.items == extents{{120, hole}, {3, data}, {4, hole}});
  CHECK(list.length() == 127);
}

TEST_CASE("a_list_of_extents_leaves_out_empty_ones") {
  extent_list list;
  CHECK(list.append(0, data));
  CHECK(list.items.empty());
  CHECK(list.length() == 0);
  list.append(5, hole);
  CHECK(list.append(0, data));
  CHECK(list.append(5, hole));
  CHECK(list.items == extents{{10, hole}});
}

TEST_CASE("a_full_list_of_extents_takes_only_what_continues_its_last") {
  extent_list list{.items = {}, .count_max = 2};
  CHECK(list.append(1, data));
  CHECK(list.append(1, hole));
  CHECK_FALSE(list.append(1, data));
  CHECK(list.append(1, hole));
  CHECK(list.append(0, data));
  CHECK(list.items == extents{{1, data}, {2, hole}});
}

TEST_CASE("an_empty_file_is_one_hole") {
  temporary_file file(10 * mib);
  CHECK(find(file.direct(), 0, 10 * mib) == extents{{10 * mib, hole}});
  CHECK(find(file.direct(), 12345, 1) == extents{{1, hole}});
}

TEST_CASE("written_space_is_data") {
  temporary_file file(mib);
  write_data(file.buffered(), 0, mib);
  CHECK(find(file.direct(), 0, mib) == extents{{mib, data}});
  CHECK(find(file.direct(), 777, 1000) == extents{{1000, data}});
}

// They are not on the disk yet when they are asked for.
TEST_CASE("data_that_was_only_just_written_is_found") {
  temporary_file file(64 * mib);
  preallocate(file.buffered(), 0, 64 * mib);
  for (std::uint64_t at = 0; at < 64 * mib; at += 4 * mib) {
    write_data(file.buffered(), at, 64 * kib);
    CHECK(find(file.direct(), at, mib) == extents{{64 * kib, data}, {mib - 64 * kib, unwritten}});
  }
}

TEST_CASE("rule 25: preallocated_space_is_unwritten_and_not_a_hole") {
  temporary_file file(4 * mib);
  preallocate(file.buffered(), mib, 2 * mib);
  CHECK(find(file.direct(), 0, 4 * mib) == extents{{mib, hole}, {2 * mib, unwritten}, {mib, hole}});
}

TEST_CASE("zeroed_space_is_unwritten") {
  temporary_file file(mib);
  write_data(file.buffered(), 0, mib);
  change_space(file.buffered(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 256 * kib, 128 * kib);
  CHECK(find(file.direct(), 0, mib) == extents{{256 * kib, data}, {128 * kib, unwritten}, {640 * kib, data}});
}

TEST_CASE("data_unwritten_space_and_holes_are_told_apart") {
  temporary_file file(8 * mib);
  write_data(file.buffered(), mib, mib);
  preallocate(file.buffered(), 2 * mib, mib);
  write_data(file.buffered(), 5 * mib, 2 * mib);
  punch(file.buffered(), 5 * mib + 512 * kib, 64 * kib);
  const extents all{{mib, hole},
                    {mib, data},
                    {mib, unwritten},
                    {2 * mib, hole},
                    {512 * kib, data},
                    {64 * kib, hole},
                    {2 * mib - 576 * kib, data},
                    {mib, hole}};
  CHECK(find(file.direct(), 0, 8 * mib) == all);
}

TEST_CASE("a_hole_at_the_end_is_found") {
  temporary_file file(3 * mib + 100);
  write_data(file.buffered(), 0, mib);
  CHECK(find(file.direct(), 0, 3 * mib + 100) == extents{{mib, data}, {2 * mib + 100, hole}});
  CHECK(find(file.direct(), 3 * mib, 100) == extents{{100, hole}});
}

TEST_CASE("data_at_an_odd_end_does_not_reach_past_it") {
  temporary_file file(mib + 333);
  write_data(file.buffered(), mib, 333);
  CHECK(find(file.direct(), 0, mib + 333) == extents{{mib, hole}, {333, data}});
}

TEST_CASE("space_past_the_end_of_the_file_does_not_show") {
  temporary_file file(mib);
  preallocate(file.buffered(), 0, 4 * mib);
  CHECK(find(file.direct(), 0, mib) == extents{{mib, unwritten}});
}

TEST_CASE("extents_are_clipped_to_the_range_that_was_asked_for") {
  temporary_file file(4 * mib);
  write_data(file.buffered(), mib, 2 * mib);
  CHECK(find(file.direct(), mib - 1, 2) == extents{{1, hole}, {1, data}});
  CHECK(find(file.direct(), mib + 5, 7) == extents{{7, data}});
  CHECK(find(file.direct(), 3 * mib - 10, 30) == extents{{10, data}, {20, hole}});
  CHECK(find(file.direct(), mib - 4096, 2 * mib + 8192) ==
        extents{{4096, hole}, {2 * mib, data}, {4096, hole}});
}

TEST_CASE("a_list_of_extents_is_cut_at_its_longest") {
  temporary_file file(64 * mib);
  for (std::uint64_t at = mib; at < 64 * mib; at += 2 * mib) write_data(file.buffered(), at, mib);
  CHECK(find(file.direct(), 0, 64 * mib, 1) == extents{{mib, hole}});
  CHECK(find(file.direct(), 0, 64 * mib, 3) == extents{{mib, hole}, {mib, data}, {mib, hole}});
  CHECK(find(file.direct(), 0, 64 * mib, 64).size() == 64);
  CHECK(find(file.direct(), 0, 64 * mib).size() == 64);
}

namespace {

// Pieces of data at equal distances, looked for in lists that are not long enough for all.
void check_sparse_tebibyte(int fd, std::uint64_t count) {
  const std::uint64_t apart = tib / count / 4096 * 4096;
  for (std::uint64_t i = 0; i < count; ++i) write_data(fd, i * apart, 4096);
  std::uint64_t at = 0, pieces = 0;
  while (at < tib) {
    extent_list found{.items = {}, .count_max = 16384};
    REQUIRE_FALSE(find_extents(fd, at, tib - at, found));
    for (const extent& item : found.items) {
      const bool expected = item.kind == data ? item.length == 4096 && at % apart == 0 : item.kind == hole;
      if (!expected) FAIL(item << " at " << at);
      at += item.length;
      ++pieces;
    }
  }
  CHECK(at == tib);
  CHECK(pieces == 2 * count);
}

}  // namespace

// Not more: a file system that discards what it frees takes milliseconds for each when the file is deleted.
TEST_CASE("more_extents_than_the_file_system_returns_at_once_are_found") {
  temporary_file file(tib);
  check_sparse_tebibyte(file.buffered(), 1100);
}

TEST_CASE("a_hundred_thousand_extents_of_a_sparse_tebibyte_are_found") {
  const file_descriptor file = file_on_tmpfs(tib);
  if (!file) {
    WARN("no tmpfs at /dev/shm: not tested");
    return;
  }
  check_sparse_tebibyte(file.get(), 100'000);
}

TEST_CASE("files_without_a_map_are_asked_for_their_holes") {
  const file_descriptor file = file_on_tmpfs(16 * mib + 5);
  if (!file) {
    WARN("no tmpfs at /dev/shm: not tested");
    return;
  }
  CHECK(find(file.get(), 0, 16 * mib + 5) == extents{{16 * mib + 5, hole}});
  // In multiples of a huge page, which tmpfs may be told to use.
  write_data(file.get(), 4 * mib, 2 * mib);
  write_data(file.get(), 16 * mib, 5);
  CHECK(find(file.get(), 0, 16 * mib) == extents{{4 * mib, hole}, {2 * mib, data}, {10 * mib, hole}});
  CHECK(find(file.get(), 5 * mib, 2 * mib) == extents{{mib, data}, {mib, hole}});
  CHECK(find(file.get(), 6 * mib - 1, 2) == extents{{1, data}, {1, hole}});
  CHECK(find(file.get(), 16 * mib, 5) == extents{{5, data}});
  CHECK(find(file.get(), 10 * mib, 6 * mib + 5) == extents{{6 * mib, hole}, {5, data}});
  CHECK(find(file.get(), 0, 16 * mib + 5, 2) == extents{{4 * mib, hole}, {2 * mib, data}});
}

TEST_CASE("the_offset_of_the_descriptor_does_not_matter") {
  const file_descriptor file = file_on_tmpfs(8 * mib);
  if (!file) {
    WARN("no tmpfs at /dev/shm: not tested");
    return;
  }
  write_data(file.get(), 0, 2 * mib);
  REQUIRE(::lseek(file.get(), 7 * mib, SEEK_SET) == 7 * mib);
  CHECK(find(file.get(), 0, 8 * mib) == extents{{2 * mib, data}, {6 * mib, hole}});
}

// Neither a map nor holes to seek for: as with some file systems and devices.
TEST_CASE("a_file_that_was_cut_off_has_no_hole_behind_its_end") {
  const test_folder folder;
  const file_descriptor file(::open(folder.sparse_file("disk", 10 * mib).c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(file);
  REQUIRE(::ftruncate(file.get(), 4 * mib) == 0);
  CHECK(find(file.get(), 0, 4 * mib) == extents{{4 * mib, hole}});
  extent_list found;
  for (const auto& [offset, length] :
       {std::pair{4 * mib, mib}, std::pair{3 * mib, mib + 1}, std::pair{9 * mib, mib}}) {
    CHECK(find_extents(file.get(), offset, length, found) == std::errc::io_error);
  }
}

TEST_CASE("what_knows_nothing_of_holes_is_all_data") {
  const test_folder folder;
  const loop_disk disk(folder.sparse_file("below", 10 * mib), 512);
  if (!disk) {
    WARN("no loop devices here: not tested");
    return;
  }
  CHECK(find(disk.fd(), 0, 10 * mib) == extents{{10 * mib, data}});
  CHECK(find(disk.fd(), mib + 1, 10) == extents{{10, data}});
}

// Every seek in it leads to its beginning, which once kept the search going for ever.
TEST_CASE("a_device_that_answers_nonsense_is_all_data") {
  const file_descriptor device(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  REQUIRE(device);
  CHECK(find(device.get(), 0, 10 * mib) == extents{{10 * mib, data}});
  CHECK(find(device.get(), mib, mib) == extents{{mib, data}});
}

// A pipe can neither be mapped nor seeked in.
TEST_CASE("what_cannot_be_seeked_in_is_a_failure") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const file_descriptor out(ends[0]), in(ends[1]);
  extent_list found;
  CHECK(find_extents(out.get(), 0, mib, found) == std::errc::invalid_seek);
}

TEST_CASE("a_failure_to_look_is_reported") {
  extent_list found;
  CHECK(find_extents(-1, 0, mib, found) == std::errc::bad_file_descriptor);
}
