#include "protocol/constants.hpp"

namespace aionbd::protocol {

std::string_view to_string(option value) noexcept {
  switch (value) {
    case option::export_name:
      return "EXPORT_NAME";
    case option::abort:
      return "ABORT";
    case option::list:
      return "LIST";
    case option::peek_export:
      return "PEEK_EXPORT";
    case option::starttls:
      return "STARTTLS";
    case option::info:
      return "INFO";
    case option::go:
      return "GO";
    case option::structured_reply:
      return "STRUCTURED_REPLY";
    case option::list_meta_context:
      return "LIST_META_CONTEXT";
    case option::set_meta_context:
      return "SET_META_CONTEXT";
    case option::extended_headers:
      return "EXTENDED_HEADERS";
  }
  return "unknown";
}

std::string_view to_string(option_reply value) noexcept {
  switch (value) {
    case option_reply::ack:
      return "ACK";
    case option_reply::server:
      return "SERVER";
    case option_reply::info:
      return "INFO";
    case option_reply::meta_context:
      return "META_CONTEXT";
    case option_reply::err_unsup:
      return "ERR_UNSUP";
    case option_reply::err_policy:
      return "ERR_POLICY";
    case option_reply::err_invalid:
      return "ERR_INVALID";
    case option_reply::err_platform:
      return "ERR_PLATFORM";
    case option_reply::err_tls_reqd:
      return "ERR_TLS_REQD";
    case option_reply::err_unknown:
      return "ERR_UNKNOWN";
    case option_reply::err_shutdown:
      return "ERR_SHUTDOWN";
    case option_reply::err_block_size_reqd:
      return "ERR_BLOCK_SIZE_REQD";
    case option_reply::err_too_big:
      return "ERR_TOO_BIG";
    case option_reply::err_ext_header_reqd:
      return "ERR_EXT_HEADER_REQD";
  }
  return "unknown";
}

std::string_view to_string(info value) noexcept {
  switch (value) {
    case info::export_:
      return "EXPORT";
    case info::name:
      return "NAME";
    case info::description:
      return "DESCRIPTION";
    case info::block_size:
      return "BLOCK_SIZE";
  }
  return "unknown";
}

std::string_view to_string(command value) noexcept {
  switch (value) {
    case command::read:
      return "READ";
    case command::write:
      return "WRITE";
    case command::disc:
      return "DISC";
    case command::flush:
      return "FLUSH";
    case command::trim:
      return "TRIM";
    case command::cache:
      return "CACHE";
    case command::write_zeroes:
      return "WRITE_ZEROES";
    case command::block_status:
      return "BLOCK_STATUS";
    case command::resize:
      return "RESIZE";
  }
  return "unknown";
}

std::string_view to_string(chunk value) noexcept {
  switch (value) {
    case chunk::none:
      return "NONE";
    case chunk::offset_data:
      return "OFFSET_DATA";
    case chunk::offset_hole:
      return "OFFSET_HOLE";
    case chunk::block_status:
      return "BLOCK_STATUS";
    case chunk::block_status_ext:
      return "BLOCK_STATUS_EXT";
    case chunk::error:
      return "ERROR";
    case chunk::error_offset:
      return "ERROR_OFFSET";
  }
  return "unknown";
}

std::string_view to_string(error value) noexcept {
  switch (value) {
    case error::none:
      return "NONE";
    case error::eperm:
      return "EPERM";
    case error::eio:
      return "EIO";
    case error::enomem:
      return "ENOMEM";
    case error::einval:
      return "EINVAL";
    case error::enospc:
      return "ENOSPC";
    case error::eoverflow:
      return "EOVERFLOW";
    case error::enotsup:
      return "ENOTSUP";
    case error::eshutdown:
      return "ESHUTDOWN";
  }
  return "unknown";
}

}  // namespace aionbd::protocol
