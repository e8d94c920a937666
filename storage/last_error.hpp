// errno as a value. To be asked at once: anything in between may change it.
#pragma once

#include <cerrno>
#include <system_error>

namespace aionbd::storage {

[[nodiscard]] inline std::error_code last_error() {
  return {errno, std::system_category()};
}

}  // namespace aionbd::storage
