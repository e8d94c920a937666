// TLS without sockets: OpenSSL's client on one side, the server's stream on the other, every byte in the
// test's hands.
#include "server/tls_stream.hpp"

#include <openssl/err.h>

#include <boost/asio/error.hpp>
#include <numeric>

#include "server/psk_file.hpp"
#include "server/tls_authority.hpp"
#include "tests/server/failing_memory.hpp"
#include "tests/server/tls_client.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;
using namespace aionbd::tests;
using server::tls_stream;

namespace {

constexpr std::size_t KiB = 1024;
constexpr std::size_t record_max = 16 * KiB;
// Of TLS 1.3: a record's header, the kind of its content, and what authenticates it.
constexpr std::size_t record_overhead = 5 + 1 + 16;
constexpr std::size_t key_update_length = record_overhead + 4 + 1;

std::shared_ptr<const server::tls_context> context_of(const server::tls_settings& settings) {
  return std::make_shared<const server::tls_context>(settings);
}

// A stream whose peer is known: alice.
struct agreed_ends {
  explicit agreed_ends(tls_client_settings of_client = {}) : peer(with_folder(of_client, keys)) {
    REQUIRE(peer.shakes_hands(stream));
    REQUIRE(peer.of_server.next == tls_stream::need::nothing);
    REQUIRE_FALSE(peer.of_server.failure);
  }
  static tls_client_settings with_folder(tls_client_settings settings, const test_keys& keys) {
    settings.folder = keys.client("alice");
    return settings;
  }

  test_keys keys;
  tls_stream stream{context_of(keys.settings())};
  tls_client peer;
};

std::vector<iovec> pieces_of(const std::vector<byte_vector>& parts) {
  std::vector<iovec> pieces;
  for (const auto& each : parts) pieces.push_back({const_cast<std::byte*>(each.data()), each.size()});
  return pieces;
}

// Of the record that begins there, with its header of five bytes.
std::size_t record_length(const byte_vector& bytes, std::size_t at) {
  return 5 + (std::to_integer<std::size_t>(bytes[at + 3]) << 8U) +
         std::to_integer<std::size_t>(bytes[at + 4]);
}

std::size_t records_in(const byte_vector& bytes) {
  std::size_t count = 0;
  for (std::size_t at = 0; at + 5 <= bytes.size(); ++count) at += record_length(bytes, at);
  return count;
}

}  // namespace

TEST_CASE("a_client_with_a_certificate_is_known_by_its_name") {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    agreed_ends ends({.version_max = version, .version_min = version});
    CHECK(ends.stream.describe() == (version == TLS1_2_VERSION
                                         ? "TLSv1.2, ECDHE-ECDSA-AES128-GCM-SHA256, CN=alice"
                                         : "TLSv1.3, TLS_AES_128_GCM_SHA256, CN=alice"));
  }
}

TEST_CASE("a_client_with_a_pre_shared_key_is_known_by_its_user") {
  const test_keys keys;
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    tls_stream stream(context_of(keys.settings()));
    tls_client peer({.psk_user = "carol",
                     .psk_key = keys.carols_key(),
                     .version_max = version,
                     .version_min = version,
                     .suites_1_2 = "DHE-PSK-AES128-GCM-SHA256"});
    REQUIRE(peer.shakes_hands(stream));
    CHECK(peer.of_server.next == tls_stream::need::nothing);
    CHECK(stream.describe().find("AES_128_GCM_SHA256, pre-shared key of carol") !=
          (version == TLS1_3_VERSION ? std::string::npos : 0));
    CHECK(stream.describe().ends_with(", pre-shared key of carol"));
  }
}

TEST_CASE("a_user_who_was_only_named_is_nobody") {
  // The key is for SHA-256 and the cipher is not, so that OpenSSL never asks for a proof.
  const test_keys keys;
  tls_stream stream(context_of(keys.settings()));
  tls_client peer({.folder = keys.client("bob"),
                   .psk_user = "carol",
                   .psk_key = std::string(32, 'x'),
                   .suites_1_3 = "TLS_AES_256_GCM_SHA384"});
  REQUIRE(peer.shakes_hands(stream));
  CHECK(stream.describe() == "TLSv1.3, TLS_AES_256_GCM_SHA384, CN=bob");

  tls_stream second(context_of(keys.settings()));
  tls_client nobody({.psk_user = "carol",
                     .psk_key = keys.carols_key(),
                     .version_min = TLS1_3_VERSION,
                     .suites_1_3 = "TLS_AES_256_GCM_SHA384"});
  nobody.exchange(second);
  CHECK(nobody.of_server.failure);
  CHECK(second.describe() == "TLS: peer did not return a certificate");
}

TEST_CASE("who_has_no_key_or_a_wrong_one_is_not_let_in_and_the_log_knows_why") {
  const test_keys keys, others;
  struct {
    tls_client_settings client;
    const char* why;
  } const rows[] = {
      {{}, "peer did not return a certificate"},
      {{.folder = others.client("alice")}, "unknown ca"},  // the client is the first to notice
      {{.psk_user = "carol", .psk_key = std::string(32, 'x')}, "binder does not verify"},
      {{.psk_user = "mallory", .psk_key = std::string(32, 'x')},
       "it named a user whose pre-shared key is not known"},
      {{.folder = keys.client("alice"), .version_max = TLS1_1_VERSION, .version_min = TLS1_1_VERSION},
       "unsupported protocol"},
      {{.folder = keys.client("alice"),
        .version_max = TLS1_2_VERSION,
        .suites_1_2 = "ECDHE-ECDSA-AES128-SHA"},
       "no shared cipher"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.why);
    tls_stream stream(context_of(keys.settings()));
    tls_client peer(row.client);
    peer.exchange(stream);
    CHECK(peer.of_server.failure);
    CHECK(stream.describe().find(row.why) != std::string::npos);
    // And that is final.
    CHECK(stream.shake_hands().failure);
    CHECK(stream.read({}).failure);
    CHECK(stream.write({}, 0).failure);
  }
}

TEST_CASE("why_tls_failed_is_known_also_when_the_connection_breaks_then") {
  const test_keys keys;
  tls_stream stream(context_of(keys.settings()));
  tls_client nobody;
  nobody.exchange(stream);
  REQUIRE(nobody.of_server.failure);
  stream.fail(std::make_error_code(std::errc::broken_pipe));
  CHECK(stream.describe() == "TLS: peer did not return a certificate");
}

TEST_CASE("a_certificate_of_another_authority_is_not_let_in") {
  const test_keys keys, others;
  tls_stream stream(context_of(keys.settings()));
  tls_client peer({.folder = others.client("alice")});
  SSL_set_verify(peer.session(), SSL_VERIFY_NONE, nullptr);
  peer.exchange(stream);
  CHECK(peer.of_server.failure);
  CHECK(stream.describe().find("the client's certificate: ") == 0);
}

TEST_CASE("a_certificate_without_its_key_is_not_let_in") {
  const test_keys keys;
  tls_stream stream(context_of(keys.settings()));
  tls_client peer({.folder = keys.client("alice"), .version_max = TLS1_2_VERSION});
  SSL_do_handshake(peer.session());
  give_input(stream, peer.take_output());
  REQUIRE_FALSE(stream.shake_hands().failure);
  peer.give_input(take_output(stream));
  SSL_do_handshake(peer.session());
  // What the key is for, a signature, is in clear text with TLS 1.2.
  byte_vector bytes = peer.take_output();
  constexpr auto handshake = std::byte{SSL3_RT_HANDSHAKE};
  constexpr auto certificate_verify = std::byte{SSL3_MT_CERTIFICATE_VERIFY};
  std::size_t at = 0;
  while (bytes.at(at) == handshake && bytes.at(at + 5) != certificate_verify) at += record_length(bytes, at);
  REQUIRE(bytes.at(at) == handshake);
  bytes.at(at + record_length(bytes, at) - 1) ^= std::byte{1};
  give_input(stream, bytes);
  CHECK(stream.shake_hands().failure);
  CHECK(stream.describe() == "TLS: bad signature");
}

TEST_CASE("a_servers_certificate_is_no_clients") {
  const test_keys keys;
  tls_stream stream(context_of(keys.settings()));
  tls_client peer;
  REQUIRE(SSL_use_certificate_file(peer.session(), (keys.server() + "/server-cert.pem").c_str(),
                                   SSL_FILETYPE_PEM) == 1);
  REQUIRE(SSL_use_PrivateKey_file(peer.session(), (keys.server() + "/server-key.pem").c_str(),
                                  SSL_FILETYPE_PEM) == 1);
  peer.exchange(stream);
  CHECK(peer.of_server.failure);
  CHECK(stream.describe().find("purpose") != std::string::npos);
}

TEST_CASE("allowed_names_come_in_and_no_others") {
  const test_keys keys;
  auto settings = keys.settings();
  for (const char* const pattern : {"alice", "a*e", "CN=alice", "[a-z]lice"}) {
    settings.allowed_names = {"nobody", pattern};
    tls_stream for_alice(context_of(settings)), for_bob(context_of(settings));
    tls_client alice({.folder = keys.client("alice")}), bob({.folder = keys.client("bob")});
    alice.exchange(for_alice);
    CHECK_FALSE(alice.of_server.failure);
    bob.exchange(for_bob);
    CHECK(bob.of_server.failure);
    CHECK(for_bob.describe() == "--tls-allow has no pattern for 'CN=bob'");
    // Pre-shared keys are a list of their own.
    tls_stream for_carol(context_of(settings));
    tls_client carol({.psk_user = "carol", .psk_key = keys.carols_key()});
    carol.exchange(for_carol);
    CHECK_FALSE(carol.of_server.failure);
  }
}

TEST_CASE("who_comes_when_there_is_no_memory_is_turned_away_and_nothing_is_thrown_through_openssl") {
  const test_keys keys;
  auto settings = keys.settings();
  const std::string user(40, 'u'), key(32, 'k');
  server::write_new_file(keys.root() + "/long.psk", server::psk_line(user, key));
  settings.psk_file = keys.root() + "/long.psk";
  settings.allowed_names = {"nobody", "and nobody else either"};
  const auto context = context_of(settings);
  for (const auto& who : {tls_client_settings{.folder = keys.client("bob")},
                          tls_client_settings{.psk_user = user, .psk_key = key},
                          tls_client_settings{.psk_user = "mallory", .psk_key = key}}) {
    unsigned without_memory = 0;
    for (std::size_t size = 16; size < 100; ++size) {
      tls_stream stream(context);
      tls_client peer(who);
      tls_stream::outcome result;
      for (int flight = 0; flight < 3 && !result.failure; ++flight) {
        SSL_do_handshake(peer.session());
        give_input(stream, peer.take_output());
        {
          const failing_memory none(size);
          result = stream.shake_hands();
        }
        peer.give_input(take_output(stream));
      }
      const bool is_let_in = !result.failure && result.next == tls_stream::need::nothing;
      if (!is_let_in && stream.describe() == "no memory") ++without_memory;
      if (is_let_in) CHECK(stream.describe().ends_with("key of " + user));
    }
    CHECK(without_memory >= 1);
  }
}

TEST_CASE("data_arrives_as_it_was_sent_in_both_directions") {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    agreed_ends ends({.version_max = version, .version_min = version});
    for (const std::size_t length :
         {std::size_t{1}, std::size_t{28}, record_max - 1, record_max, record_max + 1, 100 * KiB + 7}) {
      const byte_vector data = pattern(length, static_cast<std::uint32_t>(length));
      ends.peer.say(data);
      give_input(ends.stream, ends.peer.take_output());
      CHECK((read_from(ends.stream, 256 * KiB) == data));

      const iovec piece{const_cast<std::byte*>(data.data()), data.size()};
      CHECK(ends.stream.write({&piece, 1}, 0).bytes == length);
      ends.peer.give_input(take_output(ends.stream));
      CHECK((ends.peer.hear() == data));
    }
  }
}

TEST_CASE("a_read_fills_its_places_in_order_and_asks_for_more_input_when_there_is_none") {
  agreed_ends ends;
  const byte_vector data = pattern(50 * KiB);
  ends.peer.say(data);
  const byte_vector bytes = ends.peer.take_output();
  byte_vector first(20 * KiB + 1), second(100 * KiB);
  const iovec places[] = {{first.data(), first.size()}, {second.data(), second.size()}};
  CHECK(ends.stream.read(places).next == tls_stream::need::input);
  give_input(ends.stream, bytes);
  const auto got = ends.stream.read(places);
  CHECK(got.bytes == data.size());
  second.resize(data.size() - first.size());
  CHECK((joined(first, second) == data));
  CHECK(ends.stream.read(places).next == tls_stream::need::input);
}

TEST_CASE("records_cut_at_every_byte_arrive_whole") {
  agreed_ends ends;
  const byte_vector data = pattern(40);
  ends.peer.say(data);
  byte_vector heard;
  for (const std::byte each : ends.peer.take_output()) {
    CHECK(heard.empty());
    give_input(ends.stream, {each});
    heard = joined(heard, read_from(ends.stream, 100));
  }
  CHECK((heard == data));
}

TEST_CASE("many_small_pieces_share_a_record") {
  agreed_ends ends;
  std::vector<byte_vector> replies;
  for (unsigned i = 0; i < 100; ++i) replies.push_back(pattern(1 + i, i));
  CHECK(ends.stream.write(pieces_of(replies), 0).bytes == 5050);
  const byte_vector bytes = take_output(ends.stream);
  CHECK(records_in(bytes) == 1);
  ends.peer.give_input(bytes);
  CHECK((ends.peer.hear() ==
         std::accumulate(replies.begin(), replies.end(), byte_vector(),
                         [](auto all, const auto& each) { return joined(std::move(all), each); })));
}

TEST_CASE("a_header_and_a_long_payload_are_records_of_full_length") {
  agreed_ends ends;
  const std::vector<byte_vector> parts = {pattern(16), pattern(4 * record_max, 2), pattern(16, 3),
                                          pattern(100, 4)};
  const auto pieces = pieces_of(parts);
  CHECK(ends.stream.write(pieces, 0).bytes == 16 + 4 * record_max + 16 + 100);
  const byte_vector bytes = take_output(ends.stream);
  CHECK(records_in(bytes) == 5);
  ends.peer.give_input(bytes);
  CHECK((ends.peer.hear() == joined(joined(parts[0], parts[1]), joined(parts[2], parts[3]))));
}

TEST_CASE("what_is_written_is_bounded_by_room_and_goes_on_where_it_stopped") {
  agreed_ends ends;
  std::vector<byte_vector> parts;
  byte_vector all;
  for (unsigned i = 0; i < 60; ++i) {
    parts.push_back(pattern(16, 2 * i));
    parts.push_back(pattern(i % 3 == 0 ? 40'000 : 3000, 2 * i + 1));
    all = joined(joined(std::move(all), parts[2 * i]), parts[2 * i + 1]);
  }
  const auto pieces = pieces_of(parts);
  std::size_t taken = 0, turns = 0;
  byte_vector heard;
  while (taken < all.size()) {
    const auto more = ends.stream.write(pieces, taken);
    REQUIRE_FALSE(more.failure);
    REQUIRE(more.bytes > 0);
    taken += more.bytes;
    CHECK(ends.stream.output().size() <= server::receive_buffer::capacity);
    // Nothing is taken while output waits.
    CHECK(ends.stream.write(pieces, taken).bytes == 0);
    ends.peer.give_input(take_output(ends.stream));
    heard = joined(std::move(heard), ends.peer.hear());
    ++turns;
  }
  CHECK(turns > 1);
  CHECK((heard == all));
}

TEST_CASE("what_is_received_is_bounded_by_room_and_goes_on_where_it_stopped") {
  agreed_ends ends;
  const byte_vector all = pattern(700 * KiB);
  ends.peer.say(all);
  const byte_vector bytes = ends.peer.take_output();
  std::size_t given = 0;
  const auto give_what_fits = [&] {
    const std::size_t count = std::min(ends.stream.input_space().size(), bytes.size() - given);
    const auto* const from = bytes.data() + given;
    give_input(ends.stream, {from, from + count});
    given += count;
  };
  give_what_fits();
  CHECK(given == server::receive_buffer::capacity);
  CHECK(ends.stream.input_space().empty());
  // Who reads a byte makes room for the record that it was in, and no more.
  byte_vector heard = read_from(ends.stream, 1);
  CHECK(ends.stream.input_space().size() == record_max + record_overhead);
  while (heard.size() < all.size()) {
    give_what_fits();
    CHECK((ends.stream.input_space().empty() || given == bytes.size()));
    const byte_vector more = read_from(ends.stream, 100'000);
    REQUIRE_FALSE(more.empty());
    heard = joined(std::move(heard), more);
  }
  CHECK((heard == all));
}

TEST_CASE("nothing_is_read_while_an_answer_of_tls_itself_has_no_room") {
  agreed_ends ends;
  const byte_vector replies = pattern(server::receive_buffer::capacity), paid = pattern(64 * KiB);
  const iovec piece{const_cast<std::byte*>(replies.data()), replies.size()};
  const std::size_t taken = ends.stream.write({&piece, 1}, 0).bytes;
  const std::size_t room = server::receive_buffer::capacity - ends.stream.output().size();
  const auto say_key_update = [&] {
    REQUIRE(SSL_key_update(ends.peer.session(), SSL_KEY_UPDATE_REQUESTED) == 1);
    ends.peer.say(paid);
    give_input(ends.stream, ends.peer.take_output());
  };
  const std::size_t answers = room / key_update_length;
  std::size_t read = 0;
  for (say_key_update(); read < answers + 10; ++read) {
    if (read_from(ends.stream, paid.size()).empty()) break;
    say_key_update();
  }
  // The answer to the last of them may still be due.
  CHECK(read >= answers);
  CHECK(read <= answers + 1);
  // The next has room for a part of its answer only.
  for (int i = 0; i < 2; ++i) {
    tls_stream::outcome last;
    CHECK(read_from(ends.stream, paid.size(), &last).empty());
    CHECK(last.next == tls_stream::need::room);
    CHECK(ends.stream.output().size() == server::receive_buffer::capacity);
  }
  ends.peer.give_input(take_output(ends.stream));
  CHECK((ends.peer.hear() == byte_vector(replies.begin(), replies.begin() + static_cast<long>(taken))));
  CHECK((read_from(ends.stream, paid.size()) == paid));
}

TEST_CASE("a_good_bye_is_the_end_of_the_data_and_not_before_it") {
  agreed_ends ends;
  ends.peer.say(pattern(10));
  SSL_shutdown(ends.peer.session());
  give_input(ends.stream, ends.peer.take_output());
  tls_stream::outcome last;
  CHECK((read_from(ends.stream, 100, &last) == pattern(10)));
  CHECK_FALSE(last.failure);
  for (int i = 0; i < 2; ++i) {
    CHECK(read_from(ends.stream, 100, &last).empty());
    CHECK(last.failure == make_error_code(boost::asio::error::eof));
  }
  // Who says no more may still listen.
  const byte_vector answer = pattern(50);
  const iovec piece{const_cast<std::byte*>(answer.data()), answer.size()};
  CHECK(ends.stream.write({&piece, 1}, 0).bytes == answer.size());
  CHECK(records_in(take_output(ends.stream)) == 1);
}

TEST_CASE("the_server_says_good_bye_once_and_reads_on") {
  agreed_ends ends;
  ends.stream.say_goodbye();
  ends.stream.say_goodbye();
  const byte_vector bytes = take_output(ends.stream);
  CHECK(records_in(bytes) == 1);
  ends.peer.give_input(bytes);
  CHECK(ends.peer.hear().empty());
  CHECK((SSL_get_shutdown(ends.peer.session()) & SSL_RECEIVED_SHUTDOWN) != 0);
  ends.peer.say(pattern(10));
  give_input(ends.stream, ends.peer.take_output());
  CHECK((read_from(ends.stream, 100) == pattern(10)));
}

TEST_CASE("a_record_that_was_changed_on_its_way_ends_the_stream") {
  for (const std::size_t at : {std::size_t{0}, std::size_t{1}, std::size_t{5}, std::size_t{40}}) {
    CAPTURE(at);
    agreed_ends ends;
    ends.peer.say(pattern(100));
    byte_vector bytes = ends.peer.take_output();
    bytes[at] ^= std::byte{0x40};
    give_input(ends.stream, bytes);
    tls_stream::outcome last;
    CHECK(read_from(ends.stream, 100, &last).empty());
    CHECK(last.failure);
    CHECK(records_in(take_output(ends.stream)) == 1);  // the alert that says so
  }
}

TEST_CASE("clear_text_in_place_of_a_hello_is_refused") {
  const test_keys keys;
  tls_stream stream(context_of(keys.settings()));
  give_input(stream, packet().text("IHAVEOPT").u32(7).u32(0));
  const auto result = stream.shake_hands();
  CHECK(result.failure);
  CHECK_FALSE(stream.describe().empty());
}

TEST_CASE("renegotiation_is_refused_and_the_connection_goes_on") {
  agreed_ends ends({.version_max = TLS1_2_VERSION});
  SSL_renegotiate(ends.peer.session());
  SSL_do_handshake(ends.peer.session());
  give_input(ends.stream, ends.peer.take_output());
  tls_stream::outcome last;
  CHECK(read_from(ends.stream, 100, &last).empty());
  CHECK(last.next == tls_stream::need::input);
  ends.peer.give_input(take_output(ends.stream));
  CHECK(ends.peer.hear().empty());
  CHECK(std::string(ERR_reason_error_string(ERR_peek_last_error())) == "no renegotiation");
}

TEST_CASE("a_key_update_is_answered_and_data_goes_on_both_ways") {
  agreed_ends ends;
  for (int i = 0; i < 60; ++i) {
    REQUIRE(SSL_key_update(ends.peer.session(), SSL_KEY_UPDATE_REQUESTED) == 1);
    ends.peer.say(pattern(30));
    give_input(ends.stream, ends.peer.take_output());
    CHECK((read_from(ends.stream, 100) == pattern(30)));
    const byte_vector answer = pattern(50);
    const iovec piece{const_cast<std::byte*>(answer.data()), answer.size()};
    ends.peer.give_input(take_output(ends.stream));
    CHECK(ends.stream.write({&piece, 1}, 0).bytes == answer.size());
    ends.peer.give_input(take_output(ends.stream));
    CHECK((ends.peer.hear() == answer));
  }
}

namespace {

// Whether the stream takes one more.
bool takes_key_update(agreed_ends& ends) {
  REQUIRE(SSL_key_update(ends.peer.session(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
  REQUIRE(SSL_do_handshake(ends.peer.session()) == 1);
  give_input(ends.stream, ends.peer.take_output());
  tls_stream::outcome last;
  CHECK(read_from(ends.stream, 100, &last).empty());
  return !last.failure;
}

void say_and_read(agreed_ends& ends, std::size_t length) {
  ends.peer.say(pattern(length));
  give_input(ends.stream, ends.peer.take_output());
  REQUIRE(read_from(ends.stream, length).size() == length);
}

}  // namespace

TEST_CASE("key_updates_that_no_data_pays_for_end_the_stream_behind_the_64th") {
  agreed_ends ends;
  for (int updates = 0; updates < 64; ++updates) {
    REQUIRE(takes_key_update(ends));
    if (updates < 60) say_and_read(ends, 1);  // that is not enough
  }
  CHECK_FALSE(takes_key_update(ends));
}

TEST_CASE("64_kib_of_data_pay_for_a_key_update_and_not_for_those_to_come") {
  agreed_ends ends;
  say_and_read(ends, 128 * KiB);
  for (int updates = 0; updates < 64; ++updates) REQUIRE(takes_key_update(ends));
  for (int updates = 0; updates < 10; ++updates) {
    say_and_read(ends, 64 * KiB);
    REQUIRE(takes_key_update(ends));
  }
  say_and_read(ends, 64 * KiB - 1);
  CHECK_FALSE(takes_key_update(ends));
}

TEST_CASE("nothing_is_kept_that_a_session_could_be_resumed_with") {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    agreed_ends ends({.version_max = version, .version_min = version});
    ends.peer.hear();
    CHECK(SSL_SESSION_has_ticket(SSL_get_session(ends.peer.session())) == 0);
    CHECK(SSL_SESSION_is_resumable(SSL_get_session(ends.peer.session())) == 0);
  }
}
