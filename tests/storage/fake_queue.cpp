#include "tests/storage/fake_queue.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <utility>

#include "storage/alignment.hpp"
#include "storage/extents.hpp"
#include "tests/support/memory_of.hpp"

namespace aionbd::storage {

namespace {

bool is_read(io_op op) {
  return op == io_op::read || op == io_op::buffered_read;
}
bool is_write(io_op op) {
  return op == io_op::write || op == io_op::buffered_write;
}
bool is_zeroing(io_op op) {
  return op == io_op::punch_hole || op == io_op::zero_range || op == io_op::discard;
}
bool is_direct(io_op op) {
  return op == io_op::read || op == io_op::write;
}
bool is_change(io_op op) {
  return is_write(op) || is_zeroing(op);
}

bool overlap(const io_request& one, const io_request& other) {
  return one.offset < other.offset + other.length && other.offset < one.offset + one.length;
}

}  // namespace

const char* name_of(io_op op) {
  constexpr std::array<const char*, fake_disk::op_count> names{"read",           "write", "buffered_read",
                                                               "buffered_write", "sync",  "punch_hole",
                                                               "zero_range",     "map",   "discard"};
  return names[static_cast<std::size_t>(op)];
}

fake_disk::fake_disk(const geometry& shape, std::uint64_t seed)
    : fake_disk(shape, [generator = std::mt19937_64(seed)](std::uint64_t limit) mutable {
        return generator() % limit;
      }) {}

fake_disk::fake_disk(const geometry& shape, std::function<std::uint64_t(std::uint64_t)> choose)
    : shape_(shape),
      choose_(std::move(choose)),
      image_(shape.size),
      completed_(shape.size),
      stable_(shape.size),
      completed_versions_(shape.size),
      stable_versions_(shape.size),
      lost_versions_(shape.size),
      kinds_(shape.size / shape.zeroing_granularity + 1,
             shape.may_have_holes ? extent_kind::hole : extent_kind::data) {}

fake_disk::~fake_disk() {
  if (!flights_.empty()) std::abort();
}

descriptors fake_disk::file() const {
  return {.direct = shape_.direct_end == 0 ? buffered_fd : direct_fd,
          .buffered = shape_.direct_end == shape_.size ? direct_fd : buffered_fd};
}

void fake_disk::complain(const char* what, const io_request& request) {
  violations_.push_back(std::string(what) + ": " + name_of(request.op) + " of " +
                        std::to_string(request.length) + " bytes at " + std::to_string(request.offset));
}

void fake_disk::take(io_request& request, fake_queue& home) {
  const std::lock_guard guard(mutex_);
  check(request);
  check_conflicts(request);
  ++counts_[static_cast<std::size_t>(request.op)];
  log_.push_back({request.op, request.offset, request.length, request.durable});
  flight& moving = flights_.emplace_back();
  moving.request = &request;
  moving.home = &home;
  moving.goal = goal_of(request);
  moving.error = injected_error(request);
  if (moving.error != 0 && moving.goal != 0) moving.goal = random(moving.goal);
  if (moving.error != 0 && is_zeroing(request.op)) moving.goal = 0;
}

void fake_disk::check(const io_request& request) {
  const io_op op = request.op;
  if (op == io_op::sync) {
    if (request.fd != file().buffered) complain("wrong descriptor", request);
    return;
  }
  if (request.length == 0) complain("empty", request);
  if (request.offset + request.length > shape_.size) return complain("past the end", request);
  if (is_direct(op)) {
    const auto address = reinterpret_cast<std::uintptr_t>(request.memory);
    const bool aligned = is_aligned(request.offset, shape_.alignment) &&
                         is_aligned(request.length, shape_.alignment) &&
                         is_aligned(address, shape_.alignment);
    if (!aligned) complain("not aligned", request);
    if (request.offset + request.length > shape_.direct_end) complain("direct past direct_end", request);
    if (request.fd != direct_fd) complain("wrong descriptor", request);
  } else if (is_zeroing(op)) {
    const bool aligned = is_aligned(request.offset, shape_.zeroing_granularity) &&
                         is_aligned(request.length, shape_.zeroing_granularity);
    if (!aligned) complain("not whole blocks", request);
    if (request.fd != file().direct) complain("wrong descriptor", request);
  } else if (op == io_op::map) {
    if (request.fd != file().direct) complain("wrong descriptor", request);
    if (request.extents == nullptr) complain("nowhere to put extents", request);
  } else {
    if (request.offset < shape_.direct_end) complain("buffered before direct_end", request);
    if (request.fd != buffered_fd) complain("wrong descriptor", request);
  }
}

void fake_disk::check_conflicts(const io_request& request) {
  if (!is_change(request.op)) return;
  for (const flight& other : flights_) {
    if (is_change(other.request->op) && overlap(request, *other.request)) {
      complain("overlaps a change in flight", request);
    }
  }
}

int fake_disk::injected_error(const io_request& request) {
  for (injection& each : injections_) {
    if (each.used_up || (!each.any_op && each.op != request.op)) continue;
    if (each.skip > 0) {
      --each.skip;
      continue;
    }
    each.used_up = !each.forever;
    ++injected_;
    last_disturbed_ = {request.op, request.offset, request.length, request.durable};
    return each.error;
  }
  return 0;
}

std::uint64_t fake_disk::goal_of(const io_request& request) {
  if (request.op == io_op::sync) return 0;
  if (const auto most = next_cut(request)) return std::min(*most, request.length);
  const bool is_whole = is_zeroing(request.op) || request.op == io_op::map;
  if (!short_counts_ || is_whole || random(3) != 0) return request.length;
  const std::uint64_t block = is_direct(request.op) ? shape_.alignment : 1;
  const std::uint64_t blocks = request.length / block;
  return blocks <= 1 ? request.length : block * (1 + random(blocks));
}

// One that is due and cuts this request; those after it count on from the next.
std::optional<std::uint64_t> fake_disk::next_cut(const io_request& request) {
  for (auto each = cuts_.begin(); each != cuts_.end(); ++each) {
    if (each->op != request.op || each->skip-- != 0) continue;
    const std::uint64_t length = each->length;
    cuts_.erase(each);
    ++cuts_made_;
    last_disturbed_ = {request.op, request.offset, request.length, request.durable};
    return length;
  }
  return std::nullopt;
}

bool fake_disk::step() {
  const std::lock_guard guard(mutex_);
  if (flights_.empty()) return false;
  const auto chosen = std::next(flights_.begin(), static_cast<std::ptrdiff_t>(random(flights_.size())));
  if (!chosen->begun) {
    begin(*chosen);
  } else if (chosen->transferred < chosen->goal) {
    transfer_piece(*chosen);
  } else if (chosen->request->op == io_op::sync && lingers()) {
    return true;
  } else {
    finish(*chosen);
    flights_.erase(chosen);
  }
  return true;
}

// A sync takes long, so that much happens meanwhile. The first choice and the last are to be through with it.
bool fake_disk::lingers() {
  const std::uint64_t choice = random(10);
  return choice != 0 && choice != 9;
}

void fake_disk::begin(flight& moving) {
  moving.begun = true;
  if (moving.request->op == io_op::sync) {
    moving.content = completed_;
    moving.versions = completed_versions_;
  }
  if (moving.request->op == io_op::map) moving.request->extents->items.clear();
  // A zeroing may show in the map before it is through. Writes do not: their space stays unwritten until
  // then.
  if (is_zeroing(moving.request->op) && moving.error == 0 && random(2) == 0) note_kind(moving, moving.goal);
}

void fake_disk::transfer_piece(flight& moving) {
  const io_request& request = *moving.request;
  const std::uint64_t left = moving.goal - moving.transferred;
  const std::uint64_t piece = random(2) == 0 ? left : 1 + random(left);
  if (request.op == io_op::map) {
    if (!map_piece(request, request.offset + moving.transferred, piece))
      moving.goal = moving.transferred;
    else
      moving.transferred += piece;
    return;
  }
  std::byte* const place = image_.data() + request.offset + moving.transferred;
  if (is_read(request.op)) {
    std::memcpy(request.memory + moving.transferred, place, piece);
  } else if (is_write(request.op)) {
    std::memcpy(place, request.memory + moving.transferred, piece);
  } else {
    std::fill_n(place, piece, request.op == io_op::discard ? discarded : std::byte{0});
  }
  moving.transferred += piece;
}

// The map is looked at piece by piece, as a file system's is. False when there is no room for more.
bool fake_disk::map_piece(const io_request& request, std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t block = shape_.zeroing_granularity;
  for (const std::uint64_t end = offset + length; offset < end;) {
    const std::uint64_t past = std::min(round_down(offset, block) + block, end);
    if (!request.extents->append(past - offset, kinds_[offset / block])) return false;
    offset = past;
  }
  return true;
}

// What the first bytes of a change's range have become.
void fake_disk::note_kind(const flight& moving, std::uint64_t length) {
  const io_request& request = *moving.request;
  const bool may_be_anything = is_write(request.op) || request.op == io_op::discard;
  const extent_kind kind = may_be_anything                   ? extent_kind::data
                           : request.op == io_op::punch_hole ? extent_kind::hole
                                                             : extent_kind::unwritten;
  set_kind(kind, request.offset, length);
}

void fake_disk::set_kind(extent_kind kind, std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  const std::uint64_t block = shape_.zeroing_granularity;
  for (std::uint64_t i = offset / block; i <= (offset + length - 1) / block; ++i) kinds_[i] = kind;
}

void fake_disk::finish(flight& moving) {
  io_request& request = *moving.request;
  if (is_change(request.op)) {
    ++version_;
    note_kind(moving, moving.transferred);
    const auto begin = static_cast<std::ptrdiff_t>(request.offset);
    const auto length = static_cast<std::ptrdiff_t>(moving.transferred);
    std::copy_n(image_.begin() + begin, length, completed_.begin() + begin);
    std::fill_n(completed_versions_.begin() + begin, length, version_);
    if (request.durable && moving.error == 0 && !ignores_durability_) {
      make_stable(request.offset, &completed_[request.offset], &completed_versions_[request.offset],
                  moving.transferred);
    }
  }
  if (request.op == io_op::sync && moving.error == 0 && !ignores_syncs_) {
    make_stable(0, moving.content.data(), moving.versions.data(), shape_.size);
  }
  const bool counts_bytes = is_read(request.op) || is_write(request.op);
  request.result = moving.error != 0 ? -moving.error : 0;
  if (moving.error == 0 && counts_bytes) request.result = static_cast<std::int64_t>(moving.transferred);

  const std::lock_guard guard(moving.home->done_mutex_);
  moving.home->done_.push_back(&request);
}

void fake_disk::make_stable(std::uint64_t offset, const std::byte* content, const std::uint32_t* versions,
                            std::uint64_t length) {
  for (std::uint64_t i = 0; i < length; ++i) {
    if (versions[i] < stable_versions_[offset + i] || versions[i] <= lost_versions_[offset + i]) continue;
    stable_[offset + i] = content[i];
    stable_versions_[offset + i] = versions[i];
  }
}

std::size_t fake_disk::in_flight() const {
  const std::lock_guard guard(mutex_);
  return flights_.size();
}

std::vector<std::byte> fake_disk::image() const {
  const std::lock_guard guard(mutex_);
  return image_;
}

std::vector<std::byte> fake_disk::stable() const {
  const std::lock_guard guard(mutex_);
  return stable_;
}

void fake_disk::fill(const std::vector<std::byte>& content) {
  const std::lock_guard guard(mutex_);
  image_ = completed_ = stable_ = content;
  set_kind(extent_kind::data, 0, shape_.size);
}

void fake_disk::make(extent_kind kind, std::uint64_t offset, std::uint64_t length) {
  const std::lock_guard guard(mutex_);
  set_kind(kind, offset, length);
  if (kind == extent_kind::data) return;
  for (auto* const content : {&image_, &completed_, &stable_}) {
    std::fill_n(content->begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
  }
}

extent_kind fake_disk::kind_at(std::uint64_t offset) const {
  const std::lock_guard guard(mutex_);
  return kinds_[offset / shape_.zeroing_granularity];
}

void fake_disk::cut_nth(io_op op, std::uint64_t n, std::uint64_t length) {
  const std::lock_guard guard(mutex_);
  cuts_.push_back({op, n, length});
}

std::uint64_t fake_disk::cuts_made() const {
  const std::lock_guard guard(mutex_);
  return cuts_made_;
}

std::optional<fake_disk::record> fake_disk::last_disturbed() const {
  const std::lock_guard guard(mutex_);
  return last_disturbed_;
}

void fake_disk::fail_nth(io_op op, std::uint64_t n, int error) {
  const std::lock_guard guard(mutex_);
  injections_.push_back({.op = op, .skip = n, .error = error});
}

void fake_disk::fail_nth_of_any(std::uint64_t n, int error) {
  const std::lock_guard guard(mutex_);
  injections_.push_back({.any_op = true, .skip = n, .error = error});
}

void fake_disk::refuse_all(io_op op, int error) {
  const std::lock_guard guard(mutex_);
  injections_.push_back({.op = op, .error = error, .forever = true});
}

std::uint64_t fake_disk::failures_injected() const {
  const std::lock_guard guard(mutex_);
  return injected_;
}

std::vector<int> fake_disk::failed_syncs() const {
  const std::lock_guard guard(mutex_);
  return failed_syncs_;
}

std::uint64_t fake_disk::possible_losses() const {
  const std::lock_guard guard(mutex_);
  return possible_losses_;
}

void fake_disk::note_delivery(const io_request& request) {
  const bool is_sync = request.op == io_op::sync;
  if (request.result >= 0 || !(is_sync || (is_write(request.op) && request.durable))) return;
  const tests::memory_of mine(tests::memory_of::test);
  const std::lock_guard guard(mutex_);
  ++possible_losses_;
  if (is_sync) failed_syncs_.push_back(static_cast<int>(-request.result));
  // A write that finds no room, or is not understood, has not come to its sync.
  if (is_sync || request.result == -EIO) lose_some();
}

// Now that it is told, and not before: else a sync that began meanwhile, and covers the lost data as well,
// could succeed for somebody who cannot have been told yet.
void fake_disk::lose_some() {
  if (random(3) == 0) return;
  const std::uint64_t begin = random(2) == 0 ? 0 : random(shape_.size);
  const std::uint64_t end = random(2) == 0 ? shape_.size : begin + 1 + random(shape_.size - begin);
  for (std::uint64_t i = begin; i < end; ++i) {
    if (stable_versions_[i] < completed_versions_[i]) lost_versions_[i] = completed_versions_[i];
  }
}

std::uint64_t fake_disk::count(io_op op) const {
  const std::lock_guard guard(mutex_);
  return counts_[static_cast<std::size_t>(op)];
}

std::vector<fake_disk::record> fake_disk::log() const {
  const std::lock_guard guard(mutex_);
  return log_;
}

void fake_disk::forget_log() {
  const std::lock_guard guard(mutex_);
  log_.clear();
  counts_ = {};
}

std::vector<std::string> fake_disk::violations() const {
  const std::lock_guard guard(mutex_);
  return violations_;
}

fake_queue::~fake_queue() {
  if (outstanding_ != 0 || !posted_.empty()) std::abort();
}

void fake_queue::submit(io_request& request) {
  if (request.state != io_state::idle) std::abort();
  most_outstanding_ = std::max(most_outstanding_, ++outstanding_);
  request.state = io_state::queued;
  queued_.push_back(request);
}

void fake_queue::flush() {
  const tests::memory_of mine(tests::memory_of::test);
  while (io_request* const request = queued_.pop_front()) {
    request->state = io_state::active;
    disk_.take(*request, *this);
  }
  while (disk_.finishes_at_once_ && disk_.step()) {
  }
}

std::size_t fake_queue::deliver_finished() {
  std::vector<io_request*> ready;
  {
    const tests::memory_of mine(tests::memory_of::test);
    const std::lock_guard guard(done_mutex_);
    ready.swap(done_);
  }
  return deliver(ready);
}

void fake_queue::post(io_request& request) {
  const std::lock_guard guard(done_mutex_);
  posted_.push_back(request);
}

std::size_t fake_queue::drain() {
  std::vector<io_request*> ready;
  {
    const tests::memory_of mine(tests::memory_of::test);
    const std::lock_guard guard(done_mutex_);
    ready.swap(done_);
    while (io_request* const message = posted_.pop_front()) ready.push_back(message);
  }
  return deliver(ready);
}

std::size_t fake_queue::deliver(const std::vector<io_request*>& ready) {
  for (io_request* request : ready) {
    if (request->state != io_state::idle) --outstanding_;
    request->state = io_state::idle;
    disk_.note_delivery(*request);
    request->hook(*request);
  }
  flush();
  return ready.size();
}

void run(fake_disk& disk, const std::vector<fake_queue*>& queues) {
  for (;;) {
    std::size_t moved = 0;
    for (fake_queue* queue : queues) moved += queue->drain();
    while (disk.step()) {
      ++moved;
      for (fake_queue* queue : queues) moved += queue->drain();
    }
    if (moved == 0) return;
  }
}

void run(fake_disk& disk, fake_queue& queue) {
  run(disk, std::vector<fake_queue*>{&queue});
}

}  // namespace aionbd::storage
