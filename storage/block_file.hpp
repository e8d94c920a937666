// Opens a file or block device for a block_device: finds out its shape, locks it, and owns its descriptors.
// For start-up: blocks, and throws open_error with a sentence for people.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "storage/file_descriptor.hpp"
#include "storage/geometry.hpp"

namespace aionbd::storage {

class open_error : public std::runtime_error {
 public:
  enum class reason {
    missing,       // there is no such file
    wrong_kind,    // a directory, a pipe, a character device, ...
    empty,         // no bytes to serve
    refused,       // by the system: permissions, a missing directory, no space, ...
    no_direct_io,  // the file system takes none
    in_use,        // by another process, in a way that does not go with ours
  };

  open_error(reason why, const std::string& sentence) : std::runtime_error(sentence), why_(why) {}
  reason why() const { return why_; }

 private:
  reason why_;
};

// Removes a file that was created, unless what it was created for comes to be. The path must outlive it.
class undo_creation {
 public:
  explicit undo_creation(const std::string& path) : path_(&path) {}
  undo_creation(const undo_creation&) = delete;
  undo_creation& operator=(const undo_creation&) = delete;
  ~undo_creation();
  void keep() { path_ = nullptr; }

 private:
  const std::string* path_;
};

class block_file {
 public:
  struct request {
    std::string path;
    bool read_only = false;
    bool direct = true;
    // Create the file with this many bytes if it does not exist; one that exists is left alone.
    std::optional<std::uint64_t> create_size;
    bool preallocate = false;  // a file that is created: with all its space
  };

  // When this throws, a file that it created is gone again, unless another process has locked it meanwhile;
  // one that was there before is as it was.
  static block_file open(const request& wanted);

  const geometry& shape() const { return shape_; }
  descriptors handles() const { return {.direct = main_.get(), .buffered = buffered_fd()}; }
  bool was_created() const { return created_; }
  bool is_direct() const { return direct_; }
  const std::string& path() const { return path_; }

 private:
  block_file() = default;
  void open_descriptors(const request& wanted);
  [[nodiscard]] bool lock(const request& wanted) const;
  void measure(const request& wanted);
  void find_alignment();
  void find_abilities();
  int buffered_fd() const { return buffered_ ? buffered_.get() : main_.get(); }

  std::string path_;
  file_descriptor main_;      // O_DIRECT unless direct I/O was not wanted
  file_descriptor buffered_;  // only for a file that ends in a piece that direct I/O cannot write
  geometry shape_;
  bool direct_ = true;
  bool created_ = false;
};

}  // namespace aionbd::storage
