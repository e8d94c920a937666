#include "server/exports.hpp"

#include <algorithm>
#include <utility>

namespace aionbd::server {

protocol::export_info describe(std::string name, std::string description, const storage::geometry& shape) {
  namespace flag = protocol::transmission_flag;
  unsigned flags = flag::has_flags | flag::send_flush | flag::can_multi_conn;
  if (shape.rotational) flags |= flag::rotational;
  if (shape.read_only) {
    flags |= flag::read_only;
  } else {
    flags |= flag::send_fua | flag::send_trim | flag::send_write_zeroes | flag::send_fast_zero;
  }
  return {.name = std::move(name),
          .description = std::move(description),
          .size = shape.size,
          .flags = static_cast<std::uint16_t>(flags),
          .block_size_min = 1,
          .block_size_preferred = std::max({std::uint32_t{4096}, shape.preferred_io, shape.alignment})};
}

const storage::block_file& exports::add(std::string name, std::string description, storage::block_file file) {
  const backing& added = backings_.emplace_back(std::move(file));
  infos_.push_back(describe(std::move(name), std::move(description), added.device.shape()));
  return *added.file;
}

void exports::add(std::string name, std::string description, const storage::geometry& shape,
                  const storage::descriptors& disk) {
  backings_.emplace_back(shape, disk);
  infos_.push_back(describe(std::move(name), std::move(description), shape));
}

exports::backing& exports::backing_of(const protocol::export_info& chosen) {
  return backings_.at(static_cast<std::size_t>(&chosen - infos_.data()));
}

}  // namespace aionbd::server
