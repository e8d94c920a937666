// Whether this is a build with AddressSanitizer or ThreadSanitizer. Their run-time libraries read /proc and,
// at the end, trace the process in search of leaks; so in such a build, which is for tests, the sandbox has
// more doors.
#pragma once

namespace aionbd::server {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool is_sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool is_sanitized = true;
#else
inline constexpr bool is_sanitized = false;
#endif
#else
inline constexpr bool is_sanitized = false;
#endif

}  // namespace aionbd::server
