// Signals by which the system ends a process for what is a mere failure: they are ignored, the failure is
// told. For start-up, before the first write.
#pragma once

namespace aionbd::server {

void outlive_failures();

}  // namespace aionbd::server
