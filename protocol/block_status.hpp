// Answers to BLOCK_STATUS: what was found, made into what may be sent, and sent. The rules for the list of
// extents stand in fitted_extents() and nowhere else. Values only; the lists are the one thing of protocol/
// that allocates for a request, and status_extents_max bounds it. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "protocol/constants.hpp"
#include "protocol/requests.hpp"
#include "protocol/terms.hpp"

namespace aionbd::protocol {

struct status_extent {
  std::uint64_t length = 0;
  std::uint32_t flags = 0;  // state_flag's

  bool operator==(const status_extent&) const = default;
};

// `found` follows one another from asked.offset on; it may have empty extents, equal neighbours, reach past
// the request and past the export, end early, or be empty. The result is what the client may be told: at
// least one extent, none empty, neighbours different, at most status_extents_max; all but the last within the
// request; exactly one, and no longer than the request, for REQ_ONE; whole blocks for a client that asked for
// block sizes, except at the end of the export; and lengths that fit the mode's field. `asked` is valid.
//
// Example: 512-byte blocks, 512 asked for, and found 100 of data, 412 and 5000 of hole: the first block has
// both, of which nothing certain can be said, so it is {512, 0}.
[[nodiscard]] std::vector<status_extent> fitted_extents(std::span<const status_extent> found,
                                                        const request& asked, const terms& agreed);

// Appends the whole reply, one chunk with DONE. Not in simple mode, for which BLOCK_STATUS is never valid.
void append_block_status(std::vector<std::byte>& to, const request& asked, const terms& agreed,
                         std::uint32_t context_id, std::span<const status_extent> found);

}  // namespace aionbd::protocol
