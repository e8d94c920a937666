// Reaches the few files that the server still needs when it may open nothing any more: certificates to be
// read again, and the files of its Unix sockets, to be removed at the end. Which they are is settled before
// start(). From then on a child process that can do nothing else opens and removes them, and passes
// descriptors on; the server can name a file only by its place in the list. Until start(), or without it, the
// process does the same by itself. Outlives whoever uses it. Any thread; an answer takes as long as the file
// system does, up to a limit.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <system_error>
#include <vector>

#include "storage/file_descriptor.hpp"

namespace aionbd::server {

class file_keeper {
 public:
  // `patience`: for an answer. Then the question has failed, and those after it fail at once until the child
  // has come back from it.
  explicit file_keeper(std::chrono::milliseconds patience = std::chrono::seconds(10)) : patience_(patience) {}
  file_keeper(const file_keeper&) = delete;
  file_keeper& operator=(const file_keeper&) = delete;
  ~file_keeper();  // the child has ended, unless a file system still keeps it

  // Before start(). Whatever stands at this path when it is opened is what is read.
  void grant_reading(const std::string& path);
  // Only the file that stands there now, and nothing that takes its place.
  void grant_removal(const std::string& path);

  // Makes the child, which keeps the rights that the process has now; `confined` is false for --no-sandbox.
  // Does nothing when nothing was granted. While there is one thread. Throws std::system_error.
  void start(bool confined);

  // For reading. Of a path that was not granted: permission denied.
  [[nodiscard]] storage::file_descriptor open(const std::string& path, std::error_code& failure);
  // No error when the file is gone already or another stands there.
  [[nodiscard]] std::error_code remove(const std::string& path);

  // For tests; -1 when there is none.
  pid_t child() const { return child_; }

 private:
  enum class right : std::uint32_t { read, remove };
  struct grant {
    right what;
    std::string path;
    dev_t device = 0;  // of what is to be removed
    ino_t inode = 0;
  };
  struct question {
    right what;
    std::uint32_t index;
  };

  static storage::file_descriptor carry_out(const grant& granted, std::error_code& failure);
  [[noreturn]] void serve(int server_end, bool confined) const;
  void answer(int server_end, const question& asked) const;
  storage::file_descriptor ask(right what, const std::string& path, std::error_code& failure);
  storage::file_descriptor ask_child(const question& asked, std::error_code& failure);
  storage::file_descriptor receive_answer(int flags, std::error_code& failure);
  bool is_back();

  const std::chrono::milliseconds patience_;
  std::vector<grant> grants_;
  std::mutex mutex_;
  bool is_answer_owed_ = false;  // to a question that has failed for want of patience
  storage::file_descriptor to_child_;
  pid_t child_ = -1;
};

}  // namespace aionbd::server
