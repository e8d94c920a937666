// Keeps two writers, or a writer and a reader, off one image. Advisory locks on single bytes of the file, in
// the places where QEMU takes its own, so that the two programs refuse each other's open images.
#pragma once

namespace aionbd::storage {

enum class image_use { read, write };

// Locks the open file `fd`, for as long as its open file description lives. True: it is ours. False: somebody
// else has it open in a way that does not go with `use`. Readers go with readers. Throws std::system_error
// where the file system has no locks.
[[nodiscard]] bool lock_image(int fd, image_use use);

}  // namespace aionbd::storage
