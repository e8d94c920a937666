// What a client asks for, in the words of the storage layer: the counterpart of answers.
#pragma once

#include <cstddef>

#include "protocol/constants.hpp"
#include "protocol/requests.hpp"
#include "protocol/terms.hpp"
#include "storage/block_device.hpp"

namespace aionbd::server {

// It reads into, or writes from, a buffer of its own.
bool carries_data(protocol::command what);

storage::operation_kind kind_of(protocol::command what);

// It begins step after step, and not once and for all.
bool goes_in_steps(storage::operation_kind kind);

// The bytes that a request occupies while it is in flight. Of a READ or WRITE, those of its buffer; of
// zeroes, those of what is written at an edge; of a block status, those of the list as found and as sent.
std::size_t memory_for(const protocol::request& asked, const storage::block_device& device);

// What, where, and with which conditions; the rest of `work` is left alone.
void describe(const protocol::request& asked, protocol::reply_mode replies, storage::operation& work);

}  // namespace aionbd::server
