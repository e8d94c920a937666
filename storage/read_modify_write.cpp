#include "storage/read_modify_write.hpp"

#include <cassert>
#include <cstring>

namespace aionbd::storage {

void read_modify_write::start(const target& where, const padded_range& blocks, std::byte* memory,
                              bool durable, void* owner, transfer::continuation done) {
  assert(!blocks.is_exact());
  where_ = where;
  blocks_ = blocks;
  scratch_ = memory;
  content_ = memory + scratch_length(where.alignment);
  durable_ = durable;
  writing_ = false;
  owner_ = owner;
  done_ = done;

  // Up to two blocks are read whole, at once; of more, only the edges that the payload does not cover.
  if (blocks_.length <= 2 * where_.alignment) {
    read(blocks_.offset, blocks_.length, scratch_, &read_modify_write::on_edges_read);
  } else if (blocks_.head != 0) {
    read(blocks_.offset, where_.alignment, scratch_, &read_modify_write::on_first_edge_read);
  } else {
    on_first_edge_read(this, {});
  }
}

void read_modify_write::read(std::uint64_t offset, std::uint64_t length, std::byte* into,
                             transfer::continuation next) {
  transfer_.start(*where_.queue,
                  {.op = io_op::read,
                   .fd = where_.fd,
                   .offset = offset,
                   .length = length,
                   .alignment = where_.alignment,
                   .memory = into},
                  this, next);
}

void read_modify_write::on_first_edge_read(void* self, std::error_code failure) {
  auto& rmw = *static_cast<read_modify_write*>(self);
  if (failure) return rmw.done_(rmw.owner_, failure);
  if (rmw.blocks_.tail == 0) return rmw.patch_and_write();
  rmw.read(rmw.last_block(), rmw.where_.alignment, rmw.scratch_ + rmw.where_.alignment,
           &read_modify_write::on_edges_read);
}

void read_modify_write::on_edges_read(void* self, std::error_code failure) {
  auto& rmw = *static_cast<read_modify_write*>(self);
  if (failure) return rmw.done_(rmw.owner_, failure);
  rmw.patch_and_write();
}

void read_modify_write::patch_and_write() {
  writing_ = true;
  // Where the last block lies in scratch: behind the first, or it is the first.
  const std::uint64_t scratch_end =
      blocks_.length == where_.alignment ? where_.alignment : 2 * where_.alignment;
  std::memcpy(content_, scratch_, blocks_.head);
  std::memcpy(content_ + blocks_.length - blocks_.tail, scratch_ + scratch_end - blocks_.tail, blocks_.tail);
  transfer_.start(*where_.queue,
                  {.op = io_op::write,
                   .fd = where_.fd,
                   .offset = blocks_.offset,
                   .length = blocks_.length,
                   .alignment = where_.alignment,
                   .memory = content_,
                   .durable = durable_},
                  owner_, done_);
}

}  // namespace aionbd::storage
