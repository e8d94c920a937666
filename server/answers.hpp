// What the outcome of a request becomes on the wire, in whichever replies the client agreed to. The bytes are
// built in the slot's reply and point into its buffer; sending is the reply_writer's.
#pragma once

#include <cstdint>
#include <optional>

#include "protocol/constants.hpp"
#include "protocol/terms.hpp"
#include "server/request_slot.hpp"

namespace aionbd::server {

// The request was served: its data, its extents, or a plain success.
void answer_success(request_slot& slot, const protocol::terms& agreed);

// It was not: `result`, with a sentence for people and, if it is known, where it failed, as far as the
// replies have room for them.
void answer_error(request_slot& slot, const protocol::terms& agreed, protocol::error result,
                  std::optional<std::uint64_t> failed_at = {});

}  // namespace aionbd::server
