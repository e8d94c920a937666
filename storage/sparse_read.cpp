#include "storage/sparse_read.hpp"

#include <algorithm>
#include <new>

namespace aionbd::storage {

namespace {

// The part of `found`, which begins at `found_offset`, that lies in the range: data, and holes long enough to
// be left out. What reads as zeroes is a hole here, whether it has its space or not.
extent_list clip(const extent_list& found, std::uint64_t found_offset, std::uint64_t offset,
                 std::uint64_t length) {
  const std::uint64_t end = offset + length;
  std::uint64_t at = found_offset;
  extent_list inside;
  for (const extent& item : found.items) {
    const std::uint64_t begin = std::clamp(at, offset, end);
    const std::uint64_t past = std::clamp(at + item.length, offset, end);
    inside.append(past - begin, item.kind == extent_kind::data ? extent_kind::data : extent_kind::hole);
    at += item.length;
  }
  extent_list clipped;
  for (const extent& item : inside.items) {
    const bool worth_it = item.length >= sparse_read::hole_length_min;
    clipped.append(item.length, worth_it ? item.kind : extent_kind::data);
  }
  clipped.append(length - clipped.length(), extent_kind::data);
  return clipped;
}

bool is_all_data(const extent_list& list) {
  return list.items.size() == 1 && list.items.front().kind == extent_kind::data;
}

}  // namespace

bool sparse_read::pays_for(const block_device& device, const operation& op) {
  // The buffered piece at a file's end is not worth a special case.
  const bool one_way = device.shape_.direct_end == 0 || op.offset + op.length <= device.shape_.direct_end;
  return device.may_have_holes_ && op.length >= length_min && one_way &&
         !device.dense_.covers(op.offset, op.length);
}

void sparse_read::start(block_device& device, operation& op) {
  auto* const job = new (std::nothrow) sparse_read(device, op);
  if (job == nullptr) return device.read_plainly(op);
  // Whole regions, so that dense ones can be remembered.
  const std::uint64_t unit = device.dense_.region_length();
  io_request& lookup = job->lookup_;
  job->found_.count_max = extents_max;
  lookup.op = io_op::map;
  lookup.fd = device.file_.direct;
  lookup.offset = round_down(op.offset, unit);
  lookup.length =
      std::min(round_up(op.offset + op.length, unit) + lookahead, device.shape_.size) - lookup.offset;
  lookup.extents = &job->found_;
  lookup.owner = job;
  lookup.hook = &sparse_read::on_found;
  op.queue_->submit(lookup);
}

void sparse_read::on_found(io_request& request) {
  static_cast<sparse_read*>(request.owner)->take_found();
}

void sparse_read::take_found() {
  // A map that cannot be had is no reason to fail: reading finds the zeroes as well.
  if (lookup_.result < 0) found_.items.clear();
  std::uint64_t at = lookup_.offset;
  for (const extent& item : found_.items) {
    if (item.kind == extent_kind::data) device_.dense_.add(at, item.length);
    at += item.length;
  }

  try {
    op_.extents.items = clip(found_, lookup_.offset, op_.offset, op_.length).items;
  } catch (const std::bad_alloc&) {
    op_.extents.items.clear();
  }
  if (op_.extents.items.empty() || is_all_data(op_.extents)) {
    operation& op = op_;
    block_device& device = device_;
    delete this;
    op.extents.items.clear();
    return device.read_plainly(op);
  }
  read_next();
}

void sparse_read::read_next() {
  for (; next_ < op_.extents.items.size(); ++next_) {
    const extent& item = op_.extents.items[next_];
    const std::uint64_t begin = op_.offset + done_;
    done_ += item.length;
    if (item.kind != extent_kind::data) continue;
    ++next_;
    // The file system's blocks are never smaller than direct I/O's, so pieces begin and end on whole ones,
    // but for the ends of the read itself, whose padding is in the buffer already.
    const bool direct = device_.shape_.direct_end != 0;
    const padded_range piece = direct ? pad(begin, item.length, device_.shape_.alignment)
                                      : padded_range{.offset = begin, .length = item.length};
    const std::uint64_t buffer_begin = direct ? op_.blocks_.offset : op_.offset;
    op_.transfer_.start(*op_.queue_,
                        {.op = direct ? io_op::read : io_op::buffered_read,
                         .fd = direct ? device_.file_.direct : device_.file_.buffered,
                         .offset = piece.offset,
                         .length = piece.length,
                         .alignment = device_.shape_.alignment,
                         .memory = op_.memory + (piece.offset - buffer_begin)},
                        this, &sparse_read::on_piece_read);
    return;
  }
  end({});
}

void sparse_read::on_piece_read(void* self, std::error_code failure) {
  auto& job = *static_cast<sparse_read*>(self);
  if (failure) block_device::note_reached(job.op_, job.op_.transfer_.reached());
  if (failure) return job.end(failure);
  job.read_next();
}

void sparse_read::end(std::error_code failure) {
  operation& op = op_;
  delete this;
  op.failure = failure;
  block_device::finish(op);
}

}  // namespace aionbd::storage
