#include "server/storage_bridge.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <vector>

#include "storage/aio_queue.hpp"
#include "storage/offload_queue.hpp"
#include "tests/server/temporary_folder.hpp"
#include "tests/support/catch.hpp"

using namespace aionbd;

namespace {

// A loop without connections.
struct bridge_rig {
  storage::offload_queue blocking{1};
  boost::asio::io_context context{1};
  storage::aio_queue queue{16, blocking};
  server::completion_batch completions;
  server::storage_bridge bridge{context, queue, completions};
};

// Somebody with completions, who asks to be called once for all of a drain.
struct listener final : server::completion_batch_listener {
  explicit listener(server::completion_batch& on) : batch(on) {}

  void complete() {
    ++completions;
    if (!will_be_called) batch.call_after_drain(*this);
    will_be_called = true;
  }
  void after_completions() override {
    will_be_called = false;
    calls.push_back(completions);
  }

  server::completion_batch& batch;
  bool will_be_called = false;
  int completions = 0;
  std::vector<int> calls;  // how many completions there had been at each
};

void on_message(storage::io_request& message) {
  static_cast<listener*>(message.owner)->complete();
}

}  // namespace

TEST_CASE("a_listener_is_called_once_after_all_completions_of_a_drain") {
  bridge_rig rig;
  listener one(rig.completions), other(rig.completions);
  std::array<storage::io_request, 9> messages;
  for (auto& each : messages) {
    each.hook = on_message;
    each.owner = &each - messages.data() < 5 ? &one : &other;
    rig.queue.post(each);
  }
  CHECK(one.completions == 0);
  rig.context.poll();
  CHECK(one.calls == std::vector{5});
  CHECK(other.calls == std::vector{4});
}

TEST_CASE("a_listener_is_called_again_for_the_next_drain_and_not_without_one") {
  bridge_rig rig;
  listener one(rig.completions);
  storage::io_request message;
  message.hook = on_message;
  message.owner = &one;
  for (int i = 1; i <= 3; ++i) {
    rig.queue.post(message);
    rig.context.poll();
    rig.context.poll();
    CHECK(one.calls.size() == static_cast<std::size_t>(i));
  }
}

TEST_CASE("a_completion_of_the_kernel_wakes_the_loop") {
  const tests::temporary_folder folder;
  tests::write_file(folder.path_of("file"), 0, tests::pattern(4096));
  const int fd = ::open(folder.path_of("file").c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  bridge_rig rig;
  listener one(rig.completions);
  tests::byte_vector memory(4096);
  storage::io_request asked;
  asked.fd = fd;
  asked.length = memory.size();
  asked.memory = memory.data();
  asked.hook = on_message;
  asked.owner = &one;
  rig.queue.submit(asked);
  rig.queue.flush();
  while (one.calls.empty()) rig.context.run_one();
  CHECK(asked.result == 4096);
  CHECK(memory == tests::pattern(4096));
  ::close(fd);
}

TEST_CASE("the_eventfd_stays_the_queues_when_the_bridge_goes") {
  storage::offload_queue blocking{1};
  boost::asio::io_context context{1};
  storage::aio_queue queue{16, blocking};
  server::completion_batch completions;
  { const server::storage_bridge bridge(context, queue, completions); }
  CHECK(::fcntl(queue.event_fd(), F_GETFD) >= 0);
}
