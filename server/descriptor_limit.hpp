// How many files this process may have open, a connection being one of them.
#pragma once

namespace aionbd::server {

// Raises the limit (ulimit -n) to what so many connections need, as far as the machine allows, and says in
// the log when that is not enough. For start-up.
void allow_descriptors(unsigned connections_max, unsigned threads);

}  // namespace aionbd::server
