// What the log says at the start: what is served, where, and who can come in.
#pragma once

#include "server/server.hpp"
#include "storage/block_file.hpp"

namespace aionbd::server {

void announce(const storage::block_file& file, const server& running);

}  // namespace aionbd::server
