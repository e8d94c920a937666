#include "storage/image_lock.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <optional>
#include <set>
#include <string>
#include <system_error>

#include "storage/file_descriptor.hpp"
#include "tests/storage/test_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd::storage;

namespace {

// An image that several programs open. What counts for these locks is the opening, not the process.
struct image {
  file_descriptor open(int access = O_RDWR) const {
    file_descriptor opened(::open(path.c_str(), access | O_CLOEXEC));
    REQUIRE(opened);
    return opened;
  }
  // The bytes that somebody else has locked.
  std::set<off_t> locked_bytes() const {
    const file_descriptor looking = open();
    std::set<off_t> found;
    for (off_t at = 0; at < 512; ++at) {
      struct flock lock = byte(at, F_WRLCK);
      REQUIRE(::fcntl(looking.get(), F_OFD_GETLK, &lock) == 0);
      if (lock.l_type != F_UNLCK) found.insert(at);
    }
    return found;
  }
  static struct flock byte(off_t at, short type, off_t length = 1) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = at;
    lock.l_len = length;
    return lock;
  }

  test_folder folder;
  std::string path = folder.sparse_file("image", 4096);
};

// Another program that has locked one byte.
file_descriptor other_with(const image& shared, off_t at, short type = F_RDLCK, off_t length = 1) {
  file_descriptor other = shared.open();
  struct flock lock = image::byte(at, type, length);
  REQUIRE(::fcntl(other.get(), F_OFD_SETLK, &lock) == 0);
  return other;
}

}  // namespace

TEST_CASE("a_writer_locks_the_bytes_that_a_writing_qemu_locks") {
  const image shared;
  const file_descriptor writer = shared.open();
  REQUIRE(lock_image(writer.get(), image_use::write));
  CHECK(shared.locked_bytes() == std::set<off_t>{100, 101, 201, 203});
}

TEST_CASE("a_reader_locks_the_bytes_that_a_reading_qemu_locks") {
  const image shared;
  const file_descriptor reader = shared.open(O_RDONLY);
  REQUIRE(lock_image(reader.get(), image_use::read));
  CHECK(shared.locked_bytes() == std::set<off_t>{100, 201, 203});
}

TEST_CASE("the_locks_are_shared_ones") {
  const image shared;
  const file_descriptor writer = shared.open();
  REQUIRE(lock_image(writer.get(), image_use::write));
  for (const off_t at : {100, 101, 201, 203}) (void)other_with(shared, at, F_RDLCK);
}

TEST_CASE("a_writer_goes_with_nobody") {
  const image shared;
  const file_descriptor first = shared.open(), second = shared.open();
  REQUIRE(lock_image(first.get(), image_use::write));
  CHECK_FALSE(lock_image(second.get(), image_use::write));
  const file_descriptor reader = shared.open(O_RDONLY);
  CHECK_FALSE(lock_image(reader.get(), image_use::read));
}

TEST_CASE("readers_go_with_readers_and_not_with_a_writer") {
  const image shared;
  const file_descriptor first = shared.open(O_RDONLY), second = shared.open(O_RDONLY);
  CHECK(lock_image(first.get(), image_use::read));
  CHECK(lock_image(second.get(), image_use::read));
  const file_descriptor writer = shared.open();
  CHECK_FALSE(lock_image(writer.get(), image_use::write));
}

TEST_CASE("a_lock_lives_as_long_as_its_opening_of_the_file") {
  const image shared;
  {
    const file_descriptor first = shared.open();
    REQUIRE(lock_image(first.get(), image_use::write));
    // Locks of the process would be gone with this.
    (void)shared.open();
    const file_descriptor second = shared.open();
    CHECK_FALSE(lock_image(second.get(), image_use::write));
  }
  CHECK(shared.locked_bytes().empty());
  const file_descriptor next = shared.open();
  CHECK(lock_image(next.get(), image_use::write));
}

TEST_CASE("a_lock_outlives_a_copy_of_its_descriptor") {
  const image shared;
  const file_descriptor writer = shared.open();
  REQUIRE(lock_image(writer.get(), image_use::write));
  REQUIRE(::close(::dup(writer.get())) == 0);
  CHECK(shared.locked_bytes().size() == 4);
}

TEST_CASE("what_others_do_and_forbid_decides_who_goes_with_them") {
  struct expectation {
    off_t locked_by_another;
    bool reader;
    bool writer;
  };
  constexpr expectation all[] = {
      {100, true, true},    // reads
      {101, false, false},  // writes
      {102, true, true},    // writes what is there already
      {103, false, false},  // resizes
      {200, false, false},  // wants nobody to read
      {201, true, false},   // wants nobody to write
      {202, true, true},    // or not even what is there already
      {203, true, true},    // wants nobody to resize, which we do not
      {50, true, true},    {300, true, true},
  };
  for (const expectation& each : all) {
    CAPTURE(each.locked_by_another);
    const image shared;
    const file_descriptor other = other_with(shared, each.locked_by_another);
    const file_descriptor reader = shared.open(O_RDONLY);
    CHECK(lock_image(reader.get(), image_use::read) == each.reader);
  }
  for (const expectation& each : all) {
    CAPTURE(each.locked_by_another);
    const image shared;
    const file_descriptor other = other_with(shared, each.locked_by_another);
    const file_descriptor writer = shared.open();
    CHECK(lock_image(writer.get(), image_use::write) == each.writer);
  }
}

TEST_CASE("a_file_that_another_program_has_locked_as_a_whole_is_taken") {
  const image shared;
  const file_descriptor other = other_with(shared, 0, F_WRLCK, 0);
  const file_descriptor writer = shared.open(), reader = shared.open(O_RDONLY);
  CHECK_FALSE(lock_image(writer.get(), image_use::write));
  CHECK_FALSE(lock_image(reader.get(), image_use::read));
}

TEST_CASE("what_cannot_be_locked_throws") {
  CHECK_THROWS_AS(lock_image(-1, image_use::read), std::system_error);
}
