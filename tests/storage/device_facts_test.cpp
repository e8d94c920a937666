#include "storage/device_facts.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "storage/alignment.hpp"
#include "storage/file_descriptor.hpp"
#include "tests/storage/aligned_memory.hpp"
#include "tests/storage/loop_disk.hpp"
#include "tests/storage/test_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

constexpr std::uint64_t mib = 1 << 20;

file_descriptor open_direct(const std::string& path) {
  return file_descriptor(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
}

}  // namespace

TEST_CASE("file_systems_are_called_by_their_names") {
  for (const auto& [path, name] : {std::pair{"/proc/self/status", "proc"}, {"/sys/kernel", "sysfs"}}) {
    const file_descriptor file(::open(path, O_RDONLY | O_CLOEXEC));
    if (!file) continue;
    CHECK(file_system_name(file.get()) == name);
  }
  const file_descriptor shared(::open("/dev/shm", O_RDONLY | O_CLOEXEC));
  std::ifstream mounts("/proc/mounts");
  std::ostringstream all;
  all << mounts.rdbuf();
  const bool is_tmpfs = all.str().find(" /dev/shm tmpfs ") != std::string::npos;
  if (shared && is_tmpfs) CHECK(file_system_name(shared.get()) == "tmpfs");
}

TEST_CASE("what_is_not_open_is_on_an_unknown_file_system") {
  CHECK(file_system_name(-1) == "unknown");
}

TEST_CASE("direct_access_really_takes_the_alignment_that_is_found") {
  const test_folder folder;
  const std::string path = folder.sparse_file("image", mib);
  const file_descriptor file = open_direct(path);
  if (!file) {
    WARN("no O_DIRECT here: not tested");
    return;
  }
  // A hole takes anything: with data.
  const aligned_memory memory = allocate_aligned(2 * 65536, 65536);
  std::fill_n(memory.get(), 65536, std::byte{7});
  REQUIRE(::pwrite(file.get(), memory.get(), 65536, 0) == 65536);

  const auto alignment = direct_io_alignment(file.get(), false);
  REQUIRE(alignment.has_value());
  CHECK(is_power_of_two(*alignment));
  CHECK(*alignment >= 512);
  CHECK(*alignment <= 65536);
  CHECK(::pread(file.get(), memory.get() + *alignment, *alignment, *alignment) ==
        static_cast<ssize_t>(*alignment));
  CHECK(::pwrite(file.get(), memory.get() + *alignment, *alignment, *alignment) ==
        static_cast<ssize_t>(*alignment));
}

TEST_CASE("what_takes_no_direct_access_has_no_alignment") {
  CHECK_FALSE(direct_io_alignment(-1, false).has_value());
}

TEST_CASE("a_disk_without_a_queue_has_no_attributes") {
  CHECK_FALSE(disk_queue_attribute(0, "rotational").has_value());
  struct stat facts {};
  if (::stat("/proc", &facts) == 0) CHECK_FALSE(disk_queue_attribute(facts.st_dev, "rotational").has_value());
}

TEST_CASE("the_disk_under_a_file_has_attributes_and_no_others") {
  const test_folder folder;
  struct stat facts {};
  REQUIRE(::stat(folder.sparse_file("image", 1).c_str(), &facts) == 0);
  const auto block = disk_queue_attribute(facts.st_dev, "logical_block_size");
  if (!block) {
    WARN("the build directory is on no disk of its own: not tested");
    return;
  }
  CHECK(is_power_of_two(*block));
  CHECK(*block >= 512);
  CHECK(disk_queue_attribute(facts.st_dev, "rotational").value_or(2) <= 1);
  CHECK_FALSE(disk_queue_attribute(facts.st_dev, "no such thing").has_value());
  CHECK_FALSE(disk_queue_attribute(facts.st_dev, "scheduler").has_value());  // words, not a number
}

TEST_CASE("a_disk_says_its_own_alignment") {
  for (const std::uint32_t block_size : {512U, 1024U, 4096U}) {
    CAPTURE(block_size);
    const test_folder folder;
    const loop_disk disk(folder.sparse_file("below", mib), block_size);
    if (!disk) {
      WARN("no loop devices here: not tested");
      return;
    }
    const file_descriptor direct = open_direct(disk.path());
    REQUIRE(direct);
    CHECK(direct_io_alignment(direct.get(), true) == block_size);
    struct stat facts {};
    REQUIRE(::fstat(disk.fd(), &facts) == 0);
    CHECK(disk_queue_attribute(facts.st_rdev, "logical_block_size") == block_size);
  }
}
