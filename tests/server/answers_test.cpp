#include "server/answers.hpp"

#include <algorithm>

#include "tests/protocol/bytes.hpp"
#include "tests/server/temporary_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using protocol::command;
using protocol::reply_mode;
using server::request_slot;
using storage::extent_kind;

namespace {

constexpr std::uint64_t cookie = 0x0123456789abcdef;
constexpr std::uint64_t offset = 0x100000;

const protocol::export_info disk{.name = "", .description = "", .size = 1U << 30, .flags = 0x86d};

protocol::terms agreed(reply_mode mode) {
  return {.chosen = &disk, .replies = mode, .allocation_selected = mode != reply_mode::simple};
}

// A slot as it is when its operation has ended.
struct ended_request {
  explicit ended_request(command what, std::uint64_t length = 0, std::uint16_t flags = 0) {
    slot.asked = {.what = what, .flags = flags, .cookie = cookie, .offset = offset, .length = length};
    if (what != command::read) return;
    content = pattern(length);
    slot.payload = content.data();
  }
  byte_vector answer(reply_mode mode) {
    server::answer_success(slot, agreed(mode));
    return sent();
  }
  byte_vector refusal(reply_mode mode, protocol::error why) {
    server::answer_error(slot, agreed(mode), why);
    return sent();
  }
  // What the pieces are, one after the other.
  byte_vector sent() const {
    byte_vector bytes;
    for (const iovec& piece : slot.reply.pieces) {
      REQUIRE(piece.iov_len != 0);
      const auto* const begin = static_cast<const std::byte*>(piece.iov_base);
      bytes.insert(bytes.end(), begin, begin + piece.iov_len);
    }
    REQUIRE(bytes.size() == slot.reply.length);
    return bytes;
  }
  byte_vector part(std::size_t begin, std::size_t length) const {
    const auto at = content.begin() + static_cast<std::ptrdiff_t>(begin);
    return {at, at + static_cast<std::ptrdiff_t>(length)};
  }

  byte_vector content;
  request_slot slot;
};

packet chunk(reply_mode mode, bool done, std::uint16_t type, std::uint64_t length) {
  packet bytes;
  if (mode == reply_mode::extended) {
    return bytes.u32(0x6e8a278c).u16(done).u16(type).u64(cookie).u64(offset).u64(length);
  }
  return bytes.u32(0x668e33ef).u16(done).u16(type).u64(cookie).u32(length);
}

byte_vector simple(std::uint32_t error = 0) {
  return packet().u32(0x67446698).u32(error).u64(cookie);
}

reply_mode chunked_mode() {
  return GENERATE(reply_mode::structured, reply_mode::extended);
}

}  // namespace

TEST_CASE("a_simple_read_is_a_header_and_its_data") {
  ended_request read(command::read, 700);
  CHECK(read.answer(reply_mode::simple) == joined(simple(), read.content));
  CHECK(read.slot.reply.pieces.size() == 2);
  CHECK(read.slot.reply.pieces[1].iov_base == read.content.data());  // nothing is copied
}

TEST_CASE("a_chunked_read_is_one_chunk_with_its_data") {
  const reply_mode mode = chunked_mode();
  ended_request read(command::read, 700);
  CHECK(read.answer(mode) == joined(chunk(mode, true, 1, 708).u64(offset), read.content));
  CHECK(read.slot.reply.pieces.size() == 2);
}

TEST_CASE("rule 15: a_read_of_no_length_is_a_plain_success") {
  ended_request read(command::read, 0);
  CHECK(read.answer(reply_mode::simple) == simple());
  const reply_mode mode = chunked_mode();
  ended_request again(command::read, 0);
  CHECK(again.answer(mode) == byte_vector(chunk(mode, true, 0, 0)));
}

TEST_CASE("rule 21: done_is_on_the_last_chunk_of_a_sparse_read_and_only_there") {
  const reply_mode mode = chunked_mode();
  ended_request read(command::read, 100'000);
  read.slot.work.extents.items = {{1000, extent_kind::data},
                                  {50'000, extent_kind::hole},
                                  {20'000, extent_kind::data},
                                  {29'000, extent_kind::hole}};
  const byte_vector expected = packet()
                                   .append(chunk(mode, false, 1, 1008).u64(offset))
                                   .append(read.part(0, 1000))
                                   .append(chunk(mode, false, 2, 12).u64(offset + 1000).u32(50'000))
                                   .append(chunk(mode, false, 1, 20'008).u64(offset + 51'000))
                                   .append(read.part(51'000, 20'000))
                                   .append(chunk(mode, true, 2, 12).u64(offset + 71'000).u32(29'000));
  CHECK((read.answer(mode) == expected));
}

TEST_CASE("a_sparse_read_may_begin_with_a_hole_and_end_with_data") {
  const reply_mode mode = chunked_mode();
  ended_request read(command::read, 70'000);
  read.slot.work.extents.items = {{40'000, extent_kind::unwritten}, {30'000, extent_kind::data}};
  CHECK((read.answer(mode) == byte_vector(packet()
                                              .append(chunk(mode, false, 2, 12).u64(offset).u32(40'000))
                                              .append(chunk(mode, true, 1, 30'008).u64(offset + 40'000))
                                              .append(read.part(40'000, 30'000)))));
}

TEST_CASE("rule 22: a_read_of_nothing_but_a_hole_is_12_bytes") {
  const reply_mode mode = chunked_mode();
  ended_request read(command::read, 70'000);
  read.slot.work.extents.items = {{70'000, extent_kind::hole}};
  CHECK(read.answer(mode) == byte_vector(chunk(mode, true, 2, 12).u64(offset).u32(70'000)));
}

TEST_CASE("a_sparse_read_of_very_many_pieces_stays_in_order") {
  const reply_mode mode = chunked_mode();
  ended_request read(command::read, 2000);
  packet expected;
  for (std::size_t i = 0; i < 1000; ++i) {
    read.slot.work.extents.items.push_back({2, i % 2 == 0 ? extent_kind::data : extent_kind::hole});
    if (i % 2 == 0) {
      expected.append(chunk(mode, false, 1, 10).u64(offset + 2 * i)).append(read.part(2 * i, 2));
    } else {
      expected.append(chunk(mode, i == 999, 2, 12).u64(offset + 2 * i).u32(2));
    }
  }
  CHECK((read.answer(mode) == byte_vector(expected)));
}

TEST_CASE("changes_and_flushes_are_a_plain_success") {
  for (const command what : {command::write, command::trim, command::write_zeroes, command::flush}) {
    CAPTURE(what);
    CHECK(ended_request(what, 4096).answer(reply_mode::simple) == simple());
    for (const reply_mode mode : {reply_mode::structured, reply_mode::extended}) {
      CHECK(ended_request(what, 4096).answer(mode) == byte_vector(chunk(mode, true, 0, 0)));
    }
  }
}

// What a READ that used the slot before left there.
TEST_CASE("extents_are_nothing_to_a_change") {
  const reply_mode mode = chunked_mode();
  ended_request write(command::write, 4096);
  write.slot.work.extents.items = {{4096, extent_kind::hole}};
  CHECK(write.answer(mode) == byte_vector(chunk(mode, true, 0, 0)));
}

// --- BLOCK_STATUS

TEST_CASE("rule 25: unwritten_space_is_zero_and_a_hole_is_zero_and_hole") {
  ended_request structured(command::block_status, 60);
  structured.slot.work.extents.items = {
      {10, extent_kind::data}, {20, extent_kind::unwritten}, {30, extent_kind::hole}};
  CHECK(structured.answer(reply_mode::structured) ==
        byte_vector(
            chunk(reply_mode::structured, true, 5, 28).u32(1).u32(10).u32(0).u32(20).u32(2).u32(30).u32(3)));
  ended_request extended(command::block_status, 60);
  extended.slot.work.extents.items = {
      {10, extent_kind::data}, {20, extent_kind::unwritten}, {30, extent_kind::hole}};
  CHECK(extended.answer(reply_mode::extended) == byte_vector(chunk(reply_mode::extended, true, 6, 56)
                                                                 .u32(1)
                                                                 .u32(3)
                                                                 .u64(10)
                                                                 .u64(0)
                                                                 .u64(20)
                                                                 .u64(2)
                                                                 .u64(30)
                                                                 .u64(3)));
}

TEST_CASE("rule 24: req_one_is_answered_by_the_first_extent") {
  ended_request status(command::block_status, 60, protocol::command_flag::req_one);
  status.slot.work.extents.items = {{10, extent_kind::data}, {50, extent_kind::hole}};
  CHECK(status.answer(reply_mode::structured) ==
        byte_vector(chunk(reply_mode::structured, true, 5, 12).u32(1).u32(10).u32(0)));
}

TEST_CASE("the_memory_of_a_long_list_is_given_back") {
  ended_request status(command::block_status, 20'000);
  for (int i = 0; i < 10'000; ++i) {
    status.slot.work.extents.items.push_back({2, i % 2 == 0 ? extent_kind::data : extent_kind::hole});
  }
  CHECK(status.answer(reply_mode::extended).size() == 32 + 8 + 16 * 10'000);
  CHECK(status.slot.work.extents.items.capacity() == 0);
  status.slot.reply.clear();
  CHECK(status.slot.reply.other.capacity() == 0);
}

// --- Errors

TEST_CASE("rule 20: an_error_is_a_chunk_with_a_sentence_where_chunks_were_agreed") {
  for (const command what : {command::read, command::write, command::flush, command::block_status}) {
    CAPTURE(what);
    ended_request plain(what, 512);
    CHECK(plain.refusal(reply_mode::simple, protocol::error::eio) == simple(5));
    for (const reply_mode mode : {reply_mode::structured, reply_mode::extended}) {
      ended_request failed(what, 512);
      const std::string_view text = "The server's storage failed; its log says more.";
      CHECK(failed.refusal(mode, protocol::error::eio) ==
            byte_vector(chunk(mode, true, 0x8001, 6 + text.size()).u32(5).u16(text.size()).text(text)));
    }
  }
}

TEST_CASE("an_error_says_what_was_wrong_with_the_request") {
  const reply_mode mode = chunked_mode();
  ended_request past_end(command::write, 512, mode == reply_mode::extended ? 32 : 0);
  past_end.slot.asked.offset = disk.size;
  server::answer_error(past_end.slot, agreed(mode), protocol::error::enospc);
  const byte_vector sent = past_end.sent();
  const std::size_t head = mode == reply_mode::extended ? 32 : 20;
  std::string text;
  for (std::size_t i = head + 6; i < sent.size(); ++i) text += static_cast<char>(sent[i]);
  CHECK(text == "The write reaches past the end of the export.");
}

TEST_CASE("an_error_after_a_sparse_read_is_the_whole_answer") {
  const reply_mode mode = chunked_mode();
  ended_request read(command::read, 70'000);
  read.slot.work.extents.items = {{40'000, extent_kind::hole}, {30'000, extent_kind::data}};
  const byte_vector sent = read.refusal(mode, protocol::error::eio);
  const std::size_t head = mode == reply_mode::extended ? 32 : 20;
  REQUIRE(sent.size() > head + 6);
  CHECK(sent[5] == std::byte{1});
  CHECK(sent.size() < 200);
}
