// Loaded before the server (LD_PRELOAD), it makes the promise of durability a lie: syncs succeed and do
// nothing, durable writes are plain ones. The test of the tests of power cuts: they must find this out.
// AIONBD_FORGETS says which of the two: "flush", "fua".
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace {

// Read before the server gives up its rights.
bool forgets(const char* what) {
  const char* const said = std::getenv("AIONBD_FORGETS");
  return said != nullptr && std::strstr(said, what) != nullptr;
}

const bool forgets_flush = forgets("flush");
const bool forgets_fua = forgets("fua");

// A read of nothing: it completes as a sync would, and asks the disk for nothing.
void make_harmless(iocb& request) {
  request.aio_lio_opcode = IOCB_CMD_PREAD;
  request.aio_buf = 0;
  request.aio_nbytes = 0;
  request.aio_offset = 0;
}

void forget(iocb& request) {
  const bool is_sync = request.aio_lio_opcode == IOCB_CMD_FDSYNC || request.aio_lio_opcode == IOCB_CMD_FSYNC;
  if (is_sync && forgets_flush) make_harmless(request);
  if (forgets_fua && request.aio_lio_opcode == IOCB_CMD_PWRITE) request.aio_rw_flags &= ~RWF_DSYNC;
}

}  // namespace

// As libaio has it: the error is the result. It does not return errno's -1.
extern "C" int io_submit(aio_context_t context, long count, iocb** requests) {
  for (long i = 0; i < count; ++i) forget(*requests[i]);
  const long taken = ::syscall(SYS_io_submit, context, count, requests);
  return static_cast<int>(taken < 0 ? -errno : taken);
}

extern "C" int fdatasync(int fd) {
  return forgets_flush ? 0 : static_cast<int>(::syscall(SYS_fdatasync, fd));
}

extern "C" ssize_t pwritev2(int fd, const iovec* pieces, int count, off_t offset, int flags) {
  // The offset takes two arguments, of which processors with 64 bits ignore the second.
  return ::syscall(SYS_pwritev2, fd, pieces, count, offset, 0L, forgets_fua ? flags & ~RWF_DSYNC : flags);
}
