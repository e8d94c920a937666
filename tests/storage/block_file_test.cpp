#include "storage/block_file.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "storage/alignment.hpp"
#include "tests/storage/loop_disk.hpp"
#include "tests/storage/test_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

using reason = open_error::reason;
constexpr std::uint64_t kib = 1024, mib = 1024 * kib, tib = mib << 20;

struct refusal {
  reason why;
  std::string sentence;
};

refusal refusal_of(const block_file::request& wanted) {
  try {
    (void)block_file::open(wanted);
  } catch (const open_error& error) {
    return {error.why(), error.what()};
  }
  FAIL(wanted.path << " was opened");
  return {};
}

block_file::request writable(const std::string& path) {
  return {.path = path, .create_size = {}};
}
block_file::request readable(const std::string& path) {
  return {.path = path, .read_only = true, .create_size = {}};
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}
std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

// --- What cannot be opened

TEST_CASE("a_file_that_is_not_there_is_missing") {
  const test_folder folder;
  const refusal said = refusal_of(writable(folder.path_of("disk.img")));
  CHECK(said.why == reason::missing);
  CHECK(said.sentence == folder.path_of("disk.img") + " does not exist");
}

TEST_CASE("what_is_no_file_and_no_disk_is_of_the_wrong_kind") {
  const test_folder folder;
  const std::string pipe = folder.path_of("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  struct expectation {
    std::string path;
    const char* kind;
  };
  for (const auto& [path, kind] : {expectation{folder.path_of("."), "a directory"},
                                   {pipe, "a pipe"},
                                   {"/dev/null", "a character device"}}) {
    const refusal said = refusal_of(writable(path));
    CHECK(said.why == reason::wrong_kind);
    CHECK(said.sentence == path + " is " + kind + "; only regular files and block devices can be served");
  }
}

TEST_CASE("a_socket_is_of_the_wrong_kind") {
  const test_folder folder("/tmp");  // whose path is short enough for an address
  const std::string path = folder.path_of("socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  const file_descriptor listening(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr generic{};
  static_assert(sizeof generic <= sizeof address);
  REQUIRE(::bind(listening.get(), static_cast<sockaddr*>(static_cast<void*>(&address)), sizeof address) == 0);
  const refusal said = refusal_of(writable(path));
  CHECK(said.why == reason::wrong_kind);
  CHECK(said.sentence == path + " is a socket; only regular files and block devices can be served");
}

TEST_CASE("an_empty_file_has_nothing_to_serve") {
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", 0);
  const refusal said = refusal_of(writable(path));
  CHECK(said.why == reason::empty);
  CHECK(said.sentence == path + " is empty: there is nothing to serve");
}

TEST_CASE("a_path_through_a_file_is_refused_by_the_system") {
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", mib) + "/more";
  const refusal said = refusal_of(writable(path));
  CHECK(said.why == reason::refused);
  CHECK(said.sentence == "cannot stat " + path + ": Not a directory");
}

// A program that is running: even root may only read it.
TEST_CASE("a_file_that_may_not_be_written_is_refused_for_writing_only") {
  const std::string path = std::filesystem::read_symlink("/proc/self/exe");
  const refusal said = refusal_of({.path = path, .direct = false, .create_size = {}});
  CHECK(said.why == reason::refused);
  CHECK(said.sentence == "cannot open for writing " + path + ": Text file busy");
  CHECK_NOTHROW(block_file::open({.path = path, .read_only = true, .direct = false, .create_size = {}}));
}

TEST_CASE("a_file_system_without_direct_access_is_named") {
  const std::string path = "/sys/kernel/mm/transparent_hugepage/enabled";
  if (!std::filesystem::exists(path)) {
    WARN("no such file here: not tested");
    return;
  }
  const refusal said = refusal_of(readable(path));
  CHECK(said.why == reason::no_direct_io);
  CHECK(said.sentence == path + " is on a file system (sysfs) that refuses direct I/O (O_DIRECT)");
  CHECK_NOTHROW(block_file::open({.path = path, .read_only = true, .direct = false, .create_size = {}}));
}

TEST_CASE("a_file_in_use_is_refused") {
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", mib);
  const std::string alone = path + " is locked by another process; writing needs it exclusively";
  {
    const block_file writer = block_file::open(writable(path));
    const refusal second = refusal_of(writable(path));
    CHECK(second.why == reason::in_use);
    CHECK(second.sentence == alone);
    const refusal reader = refusal_of(readable(path));
    CHECK(reader.why == reason::in_use);
    CHECK(reader.sentence == path + " is open for writing by another process");
  }
  const block_file reader = block_file::open(readable(path));
  CHECK_NOTHROW(block_file::open(readable(path)));
  CHECK(refusal_of(writable(path)).sentence == alone);
}

// --- Creation

TEST_CASE("a_missing_file_is_created_with_its_size_and_without_space") {
  const test_folder folder;
  const std::string path = folder.path_of("disk.img");
  const block_file file = block_file::open({.path = path, .create_size = 10 * mib + 3});
  CHECK(file.was_created());
  CHECK(file.path() == path);
  CHECK(file.shape().size == 10 * mib + 3);
  CHECK(file.shape().may_have_holes);
  struct stat facts {};
  REQUIRE(::stat(path.c_str(), &facts) == 0);
  CHECK(facts.st_size == 10 * mib + 3);
  CHECK(facts.st_blocks < 64 * 2);
  CHECK((facts.st_mode & 0777) == 0600);
}

TEST_CASE("a_missing_file_is_created_with_its_space") {
  const test_folder folder;
  const block_file file =
      block_file::open({.path = folder.path_of("disk.img"), .create_size = 10 * mib, .preallocate = true});
  CHECK(file.was_created());
  CHECK_FALSE(file.shape().may_have_holes);
  struct stat facts {};
  REQUIRE(::stat(file.path().c_str(), &facts) == 0);
  CHECK(facts.st_blocks >= 10 * 1024 * 2);
}

TEST_CASE("a_file_that_exists_is_not_created_again") {
  const test_folder folder;
  const std::string path = folder.path_of("disk.img");
  write_text(path, "what was there");
  {
    const block_file file = block_file::open({.path = path, .create_size = 10 * mib, .preallocate = true});
    CHECK_FALSE(file.was_created());
    CHECK(file.shape().size == 14);
  }
  CHECK(text_of(path) == "what was there");
}

// The one that creates the file may not be the first to lock it; it must not take it away from the one that
// is.
TEST_CASE("of_two_that_create_the_same_file_none_takes_it_from_the_other", "[loops]") {
  const test_folder folder;
  for (int round = 0; round < 100; ++round) {
    const std::string path = folder.path_of("disk" + std::to_string(round));
    std::atomic<int> ready = 0;
    std::array<std::optional<block_file>, 2> opened;
    const auto race = [&](std::optional<block_file>& into) {
      ++ready;
      while (ready < 2) std::this_thread::yield();
      try {
        into = block_file::open({.path = path, .create_size = mib});
      } catch (const open_error&) {
        // Too late, or seen in the middle of it: the other has the file, or nobody.
      }
    };
    {
      const std::jthread other([&] { race(opened[1]); });
      race(opened[0]);
    }
    for (const auto& file : opened) {
      if (!file) continue;
      struct stat held {
      }, there{};
      REQUIRE(::fstat(file->handles().direct, &held) == 0);
      REQUIRE(::stat(path.c_str(), &there) == 0);
      CHECK(held.st_ino == there.st_ino);
    }
  }
}

TEST_CASE("a_creation_that_fails_leaves_nothing_behind") {
  const test_folder folder;
  const std::string path = folder.path_of("disk.img");
  const refusal empty = refusal_of({.path = path, .create_size = 0});
  CHECK(empty.why == reason::empty);
  CHECK(folder.is_empty());

  const refusal too_large = refusal_of({.path = path, .create_size = std::uint64_t{1} << 62});
  CHECK(too_large.why == reason::refused);
  CHECK(too_large.sentence == "cannot set the size of " + path + ": File too large");
  CHECK(folder.is_empty());

  const refusal negative = refusal_of({.path = path, .create_size = ~std::uint64_t{0}});
  CHECK(negative.why == reason::refused);
  CHECK(folder.is_empty());

  const std::string nowhere = folder.path_of("missing/disk.img");
  const refusal no_folder = refusal_of({.path = nowhere, .create_size = mib});
  CHECK(no_folder.why == reason::refused);
  CHECK(no_folder.sentence == "cannot create " + nowhere + ": No such file or directory");
  CHECK(folder.is_empty());
}

TEST_CASE("a_creation_without_the_space_leaves_nothing_behind") {
  // tmpfs knows before it begins that it has not got so much.
  struct stat facts {};
  if (::stat("/dev/shm", &facts) != 0) {
    WARN("no tmpfs at /dev/shm: not tested");
    return;
  }
  const test_folder folder("/dev/shm");
  const std::string path = folder.path_of("disk.img");
  const refusal said = refusal_of({.path = path, .create_size = 100 * tib, .preallocate = true});
  CHECK(said.why == reason::refused);
  CHECK(said.sentence == "cannot allocate the space of " + path + ": No space left on device");
  CHECK(folder.is_empty());
}

TEST_CASE("a_file_that_exists_stays_when_it_cannot_be_opened") {
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", mib);
  const block_file holder = block_file::open(writable(path));
  CHECK(refusal_of({.path = path, .create_size = mib}).why == reason::in_use);
  CHECK(std::filesystem::exists(path));
}

// --- Its shape

TEST_CASE("files_of_every_size_have_a_direct_part_and_an_odd_end") {
  const test_folder folder;
  for (const std::uint64_t size : {1UL, 511UL, 512UL, 513UL, 4095UL, 4096UL, 4097UL, 8191UL, 8192UL + 512,
                                   65536UL, 65536UL + 1, mib - 1, mib + 4096UL, 3 * mib + 700}) {
    CAPTURE(size);
    const block_file file =
        block_file::open({.path = folder.path_of(std::to_string(size)), .create_size = size});
    const geometry& shape = file.shape();
    CHECK(shape.size == size);
    CHECK(is_power_of_two(shape.alignment));
    CHECK(shape.alignment >= 512);
    CHECK(is_aligned(shape.direct_end, shape.alignment));
    const bool even = is_aligned(size, shape.alignment);
    const std::uint64_t border = std::max<std::uint64_t>(shape.alignment, 4096);
    CHECK(shape.direct_end == (even ? size : round_down(size, border)));
    CHECK((::fcntl(file.handles().direct, F_GETFL) & O_DIRECT) != 0);
    // No more descriptors than are needed.
    CHECK((file.handles().buffered == file.handles().direct) == even);
    if (!even) CHECK((::fcntl(file.handles().buffered, F_GETFL) & O_DIRECT) == 0);
    CHECK(is_power_of_two(shape.preferred_io));
    CHECK(shape.preferred_io >= 4096);
    CHECK(is_power_of_two(shape.zeroing_granularity));
    CHECK(shape.zeroing_granularity >= shape.alignment);
  }
}

TEST_CASE("the_odd_end_is_the_same_file") {
  const test_folder folder;
  const std::string path = folder.path_of("disk.img");
  const block_file file = block_file::open({.path = path, .create_size = 4096 + 10});
  // The path has come to mean another meanwhile.
  REQUIRE(::rename(path.c_str(), folder.path_of("moved").c_str()) == 0);
  REQUIRE(::pwrite(file.handles().buffered, "end", 3, 4096) == 3);
  CHECK(text_of(folder.path_of("moved")).substr(4096, 3) == "end");
}

TEST_CASE("a_file_without_direct_access_is_buffered_throughout") {
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", mib + 5);
  const block_file file = block_file::open({.path = path, .direct = false, .create_size = {}});
  CHECK_FALSE(file.is_direct());
  CHECK(file.shape().direct_end == 0);
  CHECK(file.shape().alignment == 1);
  CHECK((::fcntl(file.handles().direct, F_GETFL) & O_DIRECT) == 0);
  CHECK(file.handles().direct == file.handles().buffered);
}

TEST_CASE("a_writable_file_can_be_punched_and_zeroed") {
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", mib);
  const block_file file = block_file::open(writable(path));
  CHECK_FALSE(file.shape().read_only);
  CHECK_FALSE(file.shape().is_block_device);
  CHECK(file.shape().can_punch_hole);
  CHECK(file.shape().can_zero_range);
  CHECK_FALSE(file.shape().can_discard);
}

TEST_CASE("a_read_only_file_can_be_changed_in_no_way") {
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", mib + 1);
  const block_file file = block_file::open(readable(path));
  CHECK(file.shape().read_only);
  CHECK_FALSE(file.shape().can_punch_hole);
  CHECK_FALSE(file.shape().can_zero_range);
  CHECK_FALSE(file.shape().can_discard);
  for (const int fd : {file.handles().direct, file.handles().buffered}) {
    CHECK((::fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
  }
}

TEST_CASE("a_file_may_have_holes_when_it_has_less_space_than_bytes") {
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", mib);
  CHECK(block_file::open(readable(path)).shape().may_have_holes);
  write_text(path, std::string(mib, 'x'));
  {
    const file_descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    REQUIRE(::fsync(file.get()) == 0);
  }
  CHECK_FALSE(block_file::open(readable(path)).shape().may_have_holes);
}

TEST_CASE("an_open_file_can_be_moved") {
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", mib + 1);
  block_file first = block_file::open(writable(path));
  const descriptors before = first.handles();
  const block_file second = std::move(first);
  CHECK(second.handles().direct == before.direct);
  CHECK(second.handles().buffered == before.buffered);
  CHECK(refusal_of(writable(path)).why == reason::in_use);
}

TEST_CASE("descriptors_are_closed_with_the_file_and_after_a_failure") {
  const auto count = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}); };
  const test_folder folder;
  const std::string path = folder.sparse_file("disk.img", mib + 1);
  const auto before = count();
  (void)block_file::open(writable(path));
  CHECK(count() == before);
  {
    const block_file holder = block_file::open(writable(path));
    const auto held = count();
    (void)refusal_of(writable(path));
    CHECK(count() == held);
  }
  CHECK(count() == before);
}

// --- Disks

TEST_CASE("a_disk_has_its_own_size_and_alignment") {
  const test_folder folder;
  const loop_disk disk(folder.sparse_file("below", 8 * mib), 4096);
  if (!disk) {
    WARN("no loop devices here: not tested");
    return;
  }
  const block_file file = block_file::open(writable(disk.path()));
  CHECK(file.shape().is_block_device);
  CHECK(file.shape().size == 8 * mib);
  CHECK(file.shape().direct_end == 8 * mib);
  CHECK(file.shape().alignment == 4096);
  CHECK_FALSE(file.shape().may_have_holes);
}

TEST_CASE("a_disk_that_is_written_is_claimed") {
  const test_folder folder;
  const loop_disk disk(folder.sparse_file("below", 8 * mib), 512);
  if (!disk) {
    WARN("no loop devices here: not tested");
    return;
  }
  const block_file holder = block_file::open(writable(disk.path()));
  const refusal said = refusal_of(writable(disk.path()));
  CHECK(said.why == reason::in_use);
  CHECK(said.sentence == disk.path() + " is in use by the system (mounted, or part of an array?)");
  CHECK(refusal_of(readable(disk.path())).why == reason::in_use);
}

TEST_CASE("a_read_only_disk_promises_no_trims") {
  const test_folder folder;
  const loop_disk disk(folder.sparse_file("below", 8 * mib), 512);
  if (!disk) {
    WARN("no loop devices here: not tested");
    return;
  }
  const block_file file = block_file::open(readable(disk.path()));
  CHECK(file.shape().read_only);
  CHECK_FALSE(file.shape().can_discard);
  CHECK_FALSE(file.shape().can_punch_hole);
}
