// `aionbd keygen`: makes the keys that TLS needs, and says how the server and each client are to be told of
// them. It overwrites nothing.
#pragma once

namespace aionbd::server {

// `argv` begins with "keygen". The process's exit status; throws usage_error, and std::runtime_error with a
// sentence that names the file.
int run_keygen(int argc, const char* const* argv);

}  // namespace aionbd::server
