// What is served: the name, the file and the device behind it, and what clients are told of it. Here a
// device's abilities become transmission flags. Built once at start, unchanged afterwards, read by all loops.
#pragma once

#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "protocol/terms.hpp"
#include "server/fence.hpp"
#include "storage/block_device.hpp"
#include "storage/block_file.hpp"

namespace aionbd::server {

// What an export is called and what the device can do, in the protocol's terms.
[[nodiscard]] protocol::export_info describe(std::string name, std::string description,
                                             const storage::geometry& shape);

class exports {
 public:
  // Returns the file, which is kept as long as this object.
  const storage::block_file& add(std::string name, std::string description, storage::block_file file);
  // A disk whose descriptors are somebody else's and outlive this object; tests have theirs in memory.
  void add(std::string name, std::string description, const storage::geometry& shape,
           const storage::descriptors& disk);

  // Valid as long as this object; for handshakes.
  std::span<const protocol::export_info> infos() const { return infos_; }

  // The device behind one of infos(); `chosen` must be an element of it.
  storage::block_device& device_of(const protocol::export_info& chosen) { return backing_of(chosen).device; }
  // What its sessions pass before their first request.
  fence& fence_of(const protocol::export_info& chosen) { return backing_of(chosen).order; }

 private:
  struct backing {
    explicit backing(storage::block_file opened)
        : file(std::move(opened)), device(file->shape(), file->handles()) {}
    backing(const storage::geometry& shape, const storage::descriptors& disk) : device(shape, disk) {}
    std::optional<storage::block_file> file;  // outlives the device, which uses its descriptors
    storage::block_device device;
    fence order;
  };
  backing& backing_of(const protocol::export_info& chosen);

  std::vector<protocol::export_info> infos_;
  std::deque<backing> backings_;  // in the order of infos_
};

}  // namespace aionbd::server
