// What is the same with simple replies, structured replies and extended headers: each of these tests is run
// with all three. Where a rule speaks of one of them only, what the others do instead is here as well.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "protocol/error.hpp"
#include "tests/server/chunks.hpp"
#include "tests/server/requests.hpp"
#include "tests/server/served_loop.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;

namespace {

constexpr std::uint32_t hole = nbd::is_hole | nbd::is_zero;
const std::vector<std::uint16_t> all_commands = {nbd::read, nbd::write, nbd::flush, nbd::trim,
                                                 nbd::write_zeroes};

reply_mode each_mode() {
  return GENERATE(reply_mode::simple, reply_mode::structured, reply_mode::extended);
}

struct outcome {
  std::uint32_t error = nbd::ok;
  byte_vector data;  // of a READ
  friend bool operator==(const outcome&, const outcome&) = default;
};

// One session whose replies are told alike, whatever carries them.
class conversation {
 public:
  conversation(served_loop& on, reply_mode mode, bool block_sizes_requested = false)
      : mode_(mode),
        with_(on, {.block_sizes_requested = block_sizes_requested,
                   .replies = mode,
                   .allocation_selected = mode != reply_mode::simple}),
        chunks_(with_, mode) {}

  served_session& session() { return with_; }
  chunk_client& chunks() { return chunks_; }

  void send(std::uint16_t command, std::uint64_t cookie, std::uint64_t offset, std::uint64_t length,
            std::uint16_t flags = 0) {
    if (mode_ != reply_mode::simple)
      return with_.peer.send(chunks_.header(command, cookie, offset, length, flags));
    with_.peer.send(request(command, cookie, offset, length, flags));
  }
  void send_write(std::uint64_t cookie, std::uint64_t offset, const byte_vector& payload,
                  std::uint16_t flags = 0) {
    if (mode_ != reply_mode::simple) return with_.peer.send(chunks_.write(cookie, offset, payload, flags));
    with_.peer.send(write_request(cookie, offset, payload, flags));
  }
  // The answer to the only request that is under way.
  outcome receive(std::uint16_t command, std::uint64_t cookie, std::uint64_t offset, std::size_t length) {
    if (mode_ != reply_mode::simple) {
      const chunked_reply reply = chunks_.receive(cookie, offset);
      const bool has_data = command == nbd::read && reply.error() == nbd::ok && length != 0;
      return {reply.error(), has_data ? reply.data(offset, length).first : byte_vector()};
    }
    const byte_vector head = with_.peer.receive(reply_size);
    REQUIRE(number_at(head, 0, 4) == 0x67446698);
    REQUIRE(number_at(head, 8, 8) == cookie);
    const auto error = static_cast<std::uint32_t>(number_at(head, 4, 4));
    return {error, command == nbd::read && error == nbd::ok ? with_.peer.receive(length) : byte_vector()};
  }

  outcome ask(std::uint16_t command, std::uint64_t offset, std::uint64_t length, std::uint16_t flags = 0) {
    if (command == nbd::write) return write(offset, byte_vector(length, std::byte{0x77}), flags);
    send(command, ++cookie_, offset, length, flags);
    return receive(command, cookie_, offset, length);
  }
  outcome write(std::uint64_t offset, const byte_vector& payload, std::uint16_t flags = 0) {
    send_write(++cookie_, offset, payload, flags);
    return receive(nbd::write, cookie_, offset, 0);
  }
  byte_vector read(std::uint64_t offset, std::size_t length) {
    outcome found = ask(nbd::read, offset, length);
    REQUIRE(found.error == nbd::ok);
    return found.data;
  }

 private:
  reply_mode mode_;
  served_session with_;
  chunk_client chunks_;
  std::uint64_t cookie_ = 0x0123'4567'89ab'0000;
};

bool is_simple(reply_mode mode) {
  return mode == reply_mode::simple;
}

// While it lives, syncs of the served file fail: its descriptor for direct I/O is a pipe, which has none.
class failing_syncs {
 public:
  explicit failing_syncs(const std::string& path) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      const int fd = std::stoi(entry.path().filename());
      std::error_code gone;  // the iteration's own descriptor
      const bool is_it =
          std::filesystem::read_symlink(entry.path(), gone) == std::filesystem::canonical(path);
      if (is_it && (::fcntl(fd, F_GETFL) & O_DIRECT) != 0) served_ = fd;
    }
    REQUIRE(served_ >= 0);
    int pipe[2] = {};
    REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
    file_ = ::fcntl(served_, F_DUPFD_CLOEXEC, 0);
    REQUIRE(::dup2(pipe[1], served_) == served_);
    ::close(pipe[0]);
    ::close(pipe[1]);
  }
  failing_syncs(const failing_syncs&) = delete;
  failing_syncs& operator=(const failing_syncs&) = delete;
  ~failing_syncs() {
    ::dup2(file_, served_);
    ::close(file_);
  }

 private:
  int served_ = -1;
  int file_ = -1;
};

}  // namespace

TEST_CASE("rule 16: flags_that_do_not_belong_to_the_command_are_einval_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on;
  conversation talk(on, mode);
  std::vector<std::uint16_t> wrong = {nbd::req_one, 1U << 9U, 0x8000};
  if (mode != reply_mode::extended) wrong.push_back(nbd::payload_len);
  for (const std::uint16_t flag : wrong) {
    for (const std::uint16_t command : all_commands) {
      CAPTURE(flag, command);
      CHECK(talk.ask(command, 0, 512, flag).error == nbd::einval);
    }
  }
  for (const std::uint16_t command : {nbd::read, nbd::write, nbd::trim, nbd::flush}) {
    CHECK(talk.ask(command, 0, 512, nbd::fast_zero).error == nbd::einval);
    CHECK(talk.ask(command, 0, 512, nbd::no_hole).error == nbd::einval);
  }
  for (const std::uint16_t command : all_commands)
    CHECK(talk.ask(command, 0, 512, nbd::fua).error == nbd::ok);
}

TEST_CASE("rule 17: requests_without_a_payload_take_no_buffer_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on({.size = 5 * GiB});
  conversation talk(on, mode);
  const std::uint64_t longest = mode == reply_mode::extended ? 5 * GiB - 1 : 0xffff'ffff;
  write_file(on.path, longest - 4096, pattern(4097));
  CHECK(talk.ask(nbd::write_zeroes, 1, longest - 1).error == nbd::ok);
  CHECK(read_file(on.path, longest - 4096, 4096) == byte_vector(4096));
  CHECK(read_file(on.path, longest, 1) == byte_vector{pattern(4097).back()});
  CHECK(talk.ask(nbd::trim, 1, longest - 1).error == nbd::ok);
  CHECK(on.loop.buffers.pooled_bytes() == 0);
}

TEST_CASE("rule 18: any_offset_and_any_length_work_in_every_mode", "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  const bool asked_for_block_sizes = GENERATE(false, true);
  served_loop on({.size = 70'001});
  conversation talk(on, mode, asked_for_block_sizes);
  std::uint32_t seed = 1;
  for (const std::size_t offset : {0U, 1U, 511U, 512U, 4095U, 65'535U}) {
    for (const std::size_t length : {1U, 511U, 512U, 4097U}) {
      CAPTURE(offset, length);
      const byte_vector content = pattern(length, ++seed);
      REQUIRE(talk.write(offset, content).error == nbd::ok);
      REQUIRE((talk.read(offset, length) == content));
      REQUIRE(talk.ask(nbd::write_zeroes, offset, length).error == nbd::ok);
      REQUIRE((talk.read(offset, length) == byte_vector(length)));
    }
  }
}

TEST_CASE("rule 19: cookies_may_repeat_in_every_mode", "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on;
  conversation talk(on, mode), other(on, mode);
  for (const std::uint64_t cookie :
       {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{0xfedc'ba98'7654'3210}}) {
    for (int i = 0; i < 3; ++i) talk.send(nbd::flush, cookie, 0, 0);
    other.send(nbd::flush, cookie, 0, 0);
    for (int i = 0; i < 3; ++i) CHECK(talk.receive(nbd::flush, cookie, 0, 0).error == nbd::ok);
    CHECK(other.receive(nbd::flush, cookie, 0, 0).error == nbd::ok);
  }
  on.settle();
  CHECK(talk.session().peer.receive_now(1).empty());
}

TEST_CASE("rule 20: each_mode_has_its_own_kind_of_reply_for_errors_and_successes",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  const std::uint64_t magic = is_simple(mode)                  ? 0x67446698
                              : mode == reply_mode::structured ? 0x668e33ef
                                                               : 0x6e8a278c;
  served_loop on;
  for (const std::uint16_t command : all_commands) {
    for (const std::uint64_t offset : {std::uint64_t{0}, MiB}) {
      CAPTURE(command, offset);
      conversation talk(on, mode);
      if (command == nbd::write) {
        talk.send_write(1, offset, pattern(512));
      } else {
        talk.send(command, 1, offset, 512);
      }
      CHECK(number_at(talk.session().peer.receive(4), 0, 4) == magic);
    }
  }
}

TEST_CASE("rule 21, rule 22: a_reply_is_whole_and_nothing_follows_it_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on({.size = 4 * MiB});
  conversation talk(on, mode);
  const byte_vector content = pattern(100'000);
  REQUIRE(talk.write(MiB, content).error == nbd::ok);
  // Data; data between holes; nothing but a hole; one byte; none; an error.
  CHECK((talk.read(MiB, content.size()) == content));
  CHECK((talk.read(0, 4 * MiB) == read_file(on.path, 0, 4 * MiB)));
  CHECK((talk.read(2 * MiB, MiB) == byte_vector(MiB)));
  CHECK(talk.read(MiB, 1) == byte_vector{content.front()});
  CHECK(talk.read(MiB, 0).empty());
  CHECK(talk.ask(nbd::read, 4 * MiB, 1) == outcome{nbd::einval, {}});
  REQUIRE(::truncate(on.path.c_str(), MiB) == 0);  // underneath us: the rest cannot be read any more
  CHECK(talk.ask(nbd::read, 2 * MiB, 512) == outcome{nbd::eio, {}});
  on.settle();
  CHECK(talk.session().peer.receive_now(1).empty());
}

TEST_CASE("rule 23: df_does_not_exist_for_simple_replies", "[simple]") {
  served_loop on;
  conversation talk(on, reply_mode::simple);
  CHECK(talk.ask(nbd::read, 0, 512, nbd::df).error == nbd::einval);
  CHECK(talk.read(0, 512) == byte_vector(512));
}

TEST_CASE("rule 24, rule 25: block_status_does_not_exist_for_simple_replies", "[simple]") {
  served_loop on;
  conversation talk(on, reply_mode::simple);
  for (const std::uint16_t flags : {std::uint16_t{0}, nbd::req_one, nbd::fua})
    CHECK(talk.ask(nbd::block_status, 0, MiB, flags).error == nbd::einval);
  // Unwritten space and holes read as zeroes all the same.
  CHECK(talk.ask(nbd::write_zeroes, 0, 64 * KiB, nbd::no_hole).error == nbd::ok);
  CHECK((talk.read(0, MiB) == byte_vector(MiB)));
}

TEST_CASE("rule 25: zeroes_that_keep_their_space_are_no_hole", "[structured][extended]") {
  const reply_mode mode = GENERATE(reply_mode::structured, reply_mode::extended);
  served_loop on;
  conversation talk(on, mode);
  REQUIRE(talk.write(0, pattern(64 * KiB)).error == nbd::ok);
  REQUIRE(talk.ask(nbd::write_zeroes, 16 * KiB, 16 * KiB, nbd::no_hole).error == nbd::ok);
  REQUIRE(talk.ask(nbd::write_zeroes, 128 * KiB, 64 * KiB, nbd::no_hole).error == nbd::ok);
  CHECK(talk.chunks().ask(nbd::block_status, 0, MiB).extents() == pieces{{16 * KiB, 0},
                                                                         {16 * KiB, nbd::is_zero},
                                                                         {32 * KiB, 0},
                                                                         {64 * KiB, hole},
                                                                         {64 * KiB, nbd::is_zero},
                                                                         {MiB - 192 * KiB, hole}});
}

TEST_CASE("rule 27: a_flush_covers_writes_of_other_connections_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on;
  conversation one(on, mode), other(on, mode);
  for (std::uint32_t i = 0; i < 4; ++i) {
    REQUIRE(one.write(i * 10'000, pattern(10'000, i)).error == nbd::ok);
    REQUIRE(other.ask(nbd::flush, 0, 0).error == nbd::ok);
    CHECK((read_file(on.path, i * 10'000, 10'000) == pattern(10'000, i)));
  }
}

TEST_CASE("rule 28: fua_changes_are_in_the_file_when_they_are_answered_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on;
  conversation talk(on, mode);
  REQUIRE(talk.write(777, pattern(50'000), nbd::fua).error == nbd::ok);
  CHECK((read_file(on.path, 777, 50'000) == pattern(50'000)));
  REQUIRE(talk.ask(nbd::write_zeroes, 777, 25'000, nbd::fua).error == nbd::ok);
  CHECK((read_file(on.path, 777, 25'000) == byte_vector(25'000)));
  CHECK(talk.ask(nbd::trim, 8192, 16'384, nbd::fua).error == nbd::ok);
  CHECK((talk.read(0, 60'000) == read_file(on.path, 0, 60'000)));
}

TEST_CASE("rule 29: a_failed_sync_is_told_to_every_connection_once_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on;
  conversation one(on, mode), other(on, mode), third(on, mode);
  REQUIRE(other.write(0, pattern(4096)).error == nbd::ok);
  {
    const failing_syncs failing(on.path);
    CHECK(one.ask(nbd::flush, 0, 0).error == nbd::eio);
  }
  // The disk is well again; the others have to hear that what they wrote may be lost.
  CHECK(one.ask(nbd::flush, 0, 0).error == nbd::ok);
  CHECK(other.ask(nbd::flush, 0, 0).error == nbd::eio);
  CHECK(other.ask(nbd::flush, 0, 0).error == nbd::ok);
  CHECK(third.write(0, pattern(4096), nbd::fua).error == nbd::eio);
  CHECK(third.write(0, pattern(4096), nbd::fua).error == nbd::ok);
}

TEST_CASE("rule 30: zeroes_keep_their_promises_in_every_mode", "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on;
  conversation talk(on, mode);
  for (const std::uint16_t flags : {std::uint16_t{0}, nbd::no_hole, nbd::fast_zero,
                                    static_cast<std::uint16_t>(nbd::no_hole | nbd::fast_zero | nbd::fua)}) {
    CAPTURE(flags);
    REQUIRE(talk.write(0, pattern(MiB)).error == nbd::ok);
    const std::uint32_t aligned = talk.ask(nbd::write_zeroes, 64 * KiB, 512 * KiB, flags).error;
    // This file system zeroes whole blocks without writing.
    CHECK(aligned == nbd::ok);
    CHECK((talk.read(64 * KiB, 512 * KiB) == byte_vector(512 * KiB)));
    const byte_vector before = talk.read(700'000, 1000);
    const std::uint32_t edges = talk.ask(nbd::write_zeroes, 700'001, 997, flags).error;
    if ((flags & nbd::fast_zero) != 0 && edges == nbd::enotsup) {
      CHECK(talk.read(700'000, 1000) == before);
    } else {
      CHECK(edges == nbd::ok);
      CHECK(talk.read(700'001, 997) == byte_vector(997));
    }
    CHECK(talk.read(700'000, 1).front() == before.front());
    CHECK(talk.read(700'998, 2) == byte_vector(before.end() - 2, before.end()));
  }
}

TEST_CASE("rule 31: a_trim_shows_old_bytes_or_zeroes_in_every_mode", "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on;
  conversation talk(on, mode);
  const byte_vector content = pattern(300'000);
  REQUIRE(talk.write(0, content).error == nbd::ok);
  for (const auto& [offset, length] : {std::pair{5000U, 100'000U}, {150'001U, 511U}, {200'000U, 65'536U}}) {
    REQUIRE(talk.ask(nbd::trim, offset, length).error == nbd::ok);
    const byte_vector now = talk.read(0, content.size());
    for (std::size_t i = 0; i < now.size(); ++i) REQUIRE((now[i] == content[i] || now[i] == std::byte{0}));
    CHECK((now == read_file(on.path, 0, content.size())));
  }
}

TEST_CASE("rule 32: unaligned_writes_of_several_connections_lose_nothing_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on;
  conversation one(on, mode), two(on, mode), three(on, mode);
  conversation* const all[] = {&one, &two, &three};
  const std::size_t piece = 100, rounds = 50;
  for (std::size_t i = 0; i < 3 * rounds; ++i)
    all[i % 3]->send_write(1, i * piece, pattern(piece, static_cast<std::uint32_t>(i)));
  for (std::size_t i = 0; i < 3 * rounds; ++i) {
    // In whatever order they end, each has the offset of one that this connection wrote.
    served_session& session = all[i % 3]->session();
    const std::size_t size = is_simple(mode) ? reply_size : mode == reply_mode::structured ? 20U : 32U;
    const byte_vector head = session.peer.receive(size);
    CHECK(number_at(head, is_simple(mode) ? 4 : 6, is_simple(mode) ? 4 : 2) == nbd::ok);
  }
  for (std::uint32_t i = 0; i < 3 * rounds; ++i)
    REQUIRE(read_file(on.path, i * piece, piece) == pattern(piece, i));
}

TEST_CASE("rule 36: a_new_sessions_write_follows_a_dead_sessions_in_every_mode",
          "[simple][structured][extended]") {
  const reply_mode mode = each_mode();
  served_loop on({.size = 16 * MiB});
  for (std::uint32_t round = 0; round < 3; ++round) {
    conversation dead(on, mode);
    dead.send_write(1, 0, pattern(8 * MiB, 2 * round));
    dead.session().peer.close();
    conversation next(on, mode);
    (void)on.run_until([&] { return on.loop.aio.outstanding() != 0; });
    const byte_vector last = pattern(4096, 2 * round + 1);
    REQUIRE(next.write(4096, last).error == nbd::ok);
    (void)dead.session().why();
    REQUIRE((read_file(on.path, 4096, last.size()) == last));
  }
}
