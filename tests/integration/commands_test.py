#!/usr/bin/python3
"""Every command with every flag, by way of libnbd, and what the client is told about bad ones."""
import contextlib
import errno

import nbd
import served
from served import MIB

SIZE = 4 * MIB + 333
ANY_LENGTH = (1, 2, 511, 512, 513, 4095, 4096, 4097, 65536, 131073, MIB)


class Commands(served.Facts):
    @contextlib.contextmanager
    def _client(self, *options, image=None, permissive=False):
        image = image or self.image(b"\xa5" * SIZE)
        with self.serve(image, *options) as server:
            # Without strict mode, libnbd sends what it is told to and leaves it to the server to complain.
            handle = server.connect(lambda handle: handle.set_strict_mode(0) if permissive else None)
            yield handle, image
            handle.shutdown()

    def _expect(self, error, call, *arguments):
        with self.assertRaises(nbd.Error) as raised:
            call(*arguments)
        self.assertEqual(raised.exception.errno, errno.errorcode[error])

    # What they do

    def reads_of_any_length_at_any_offset(self):
        image = self.image(SIZE)
        content = image.read_bytes()
        with self._client(image=image) as (handle, _):
            for length in ANY_LENGTH:
                for offset in (0, 1, 511, 4095, 4096, 123457, SIZE - length):
                    self.assert_same_bytes(handle.pread(length, offset), content[offset:offset + length])

    def a_read_with_fua_is_a_read(self):
        with self._client() as (handle, _):
            handle.set_strict_mode(0)
            self.assertEqual(handle.pread(5, 7, nbd.CMD_FLAG_FUA), b"\xa5" * 5)

    def writes_of_any_length_change_those_bytes_only(self):
        with self._client() as (handle, image):
            wanted = bytearray(b"\xa5" * SIZE)
            for number, length in enumerate(ANY_LENGTH):
                for offset in (0, 4095, 70001, SIZE - length):
                    data = bytes([number + 1]) * length
                    handle.pwrite(data, offset, nbd.CMD_FLAG_FUA if number % 2 else 0)
                    wanted[offset:offset + length] = data
        self.assert_same_bytes(image.read_bytes(), wanted)

    def the_longest_payload_is_32_mib(self):
        image = self.sparse(33 * MIB)
        with self._client(image=image, permissive=True) as (handle, _):
            data = bytes(range(256)) * (32 * MIB // 256)
            handle.pwrite(data, 511)
            self.assert_same_bytes(handle.pread(32 * MIB, 511), data)
            self._expect(errno.EOVERFLOW, handle.pread, 32 * MIB + 1, 0)  # replies are structured
            self.assertEqual(handle.pread(1, 511), b"\0")

    def a_flush_is_answered(self):
        with self._client() as (handle, _):
            handle.pwrite(b"x", 0)
            handle.flush()

    def zeroes_of_any_length_change_those_bytes_only(self):
        with self._client() as (handle, image):
            wanted = bytearray(b"\xa5" * SIZE)
            for flags in (0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA):
                for length in ANY_LENGTH:
                    for offset in (3, 4096, SIZE - length):
                        handle.pwrite(b"\xa5" * length, offset)
                        handle.zero(length, offset, flags)
                        wanted[offset:offset + length] = bytes(length)
                        self.assertEqual(handle.pread(length, offset).count(0), length)
        self.assert_same_bytes(image.read_bytes(), wanted)

    def zeroes_with_no_hole_keep_the_space(self):
        with self._client() as (handle, image):
            before = image.stat().st_blocks
            handle.zero(2 * MIB, MIB, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
            self.assertGreaterEqual(image.stat().st_blocks, before)

    def zeroes_without_no_hole_free_the_space(self):
        with self._client() as (handle, image):
            before = image.stat().st_blocks
            handle.zero(2 * MIB, MIB, nbd.CMD_FLAG_FUA)
            self.assertLess(image.stat().st_blocks, before)

    def fast_zeroes_are_done_or_refused_without_a_change(self):
        with self._client() as (handle, image):
            for offset, length in ((0, MIB), (MIB + 1, 5000), (SIZE - 100, 100)):
                before = handle.pread(length, offset)
                try:
                    handle.zero(length, offset, nbd.CMD_FLAG_FAST_ZERO)
                    self.assertEqual(handle.pread(length, offset).count(0), length)
                except nbd.Error as refusal:
                    self.assertEqual(refusal.errno, "ENOTSUP")
                    self.assert_same_bytes(handle.pread(length, offset), before)

    def trimmed_bytes_are_as_before_or_zero_and_their_neighbours_untouched(self):
        with self._client() as (handle, image):
            for flags in (0, nbd.CMD_FLAG_FUA):
                for offset, length in ((1, 1), (4096, 65536), (100001, 300000), (SIZE - 70000, 70000)):
                    handle.trim(length, offset, flags)
                    self.assertLessEqual(set(handle.pread(length, offset)), {0, 0xA5})
            content = handle.pread(SIZE, 0)
        self.assertEqual(content[0], 0xA5)
        self.assertEqual(content[2:4096].count(0xA5), 4094)
        self.assertEqual(content[69632:100001].count(0xA5), 100001 - 69632)
        self.assert_same_bytes(image.read_bytes(), content)

    def a_large_trim_frees_space(self):
        with self._client() as (handle, image):
            before = image.stat().st_blocks
            handle.trim(2 * MIB, MIB, nbd.CMD_FLAG_FUA)
            self.assertLess(image.stat().st_blocks, before)

    def zeroes_of_4_gib_less_1_work_in_one_request(self):
        image = self.sparse((1 << 32) + 5)
        with self._client(image=image) as (handle, _):
            handle.pwrite(b"first", 0)
            handle.pwrite(b"last!", (1 << 32) - 2)
            handle.zero((1 << 32) - 1, 0)
            self.assertEqual(handle.pread(5, 0), bytes(5))
            self.assertEqual(handle.pread(7, (1 << 32) - 2), b"\0ast!\0\0")

    def the_file_keeps_its_size(self):
        with self._client() as (handle, image):
            handle.pwrite(b"end", SIZE - 3)
            handle.zero(700, SIZE - 700)
            handle.trim(70000, SIZE - 70000)
            handle.zero(SIZE, 0, nbd.CMD_FLAG_NO_HOLE)
        self.assertEqual(image.stat().st_size, SIZE)

    # What they refuse

    def past_the_end_is_an_error_and_changes_nothing(self):
        with self._client(permissive=True) as (handle, image):
            for offset, length in ((SIZE, 1), (SIZE - 1, 2), (SIZE + 4096, 512), ((1 << 63) - 1, 1), (0, SIZE + 1)):
                self._expect(errno.EINVAL, handle.pread, length, offset)
                self._expect(errno.ENOSPC, handle.pwrite, bytes(length), offset)
                self._expect(errno.ENOSPC, handle.zero, length, offset)
                self._expect(errno.EINVAL, handle.trim, length, offset)
            self._expect(errno.ENOSPC, handle.zero, (1 << 32) - 1, 1)
        self.assert_same_bytes(image.read_bytes(), b"\xa5" * SIZE)

    def a_read_only_export_refuses_changes_with_eperm(self):
        with self._client("--read-only", permissive=True) as (handle, image):
            self._expect(errno.EPERM, handle.pwrite, b"x", 0)
            self._expect(errno.EPERM, handle.pwrite, bytes(MIB), 0)
            self._expect(errno.EPERM, handle.zero, 4096, 0)
            self._expect(errno.EPERM, handle.trim, 4096, 0)
            self.assertEqual(handle.pread(3, 1), b"\xa5" * 3)
        self.assert_same_bytes(image.read_bytes(), b"\xa5" * SIZE)

    def an_unknown_flag_is_einval_and_the_connection_goes_on(self):
        with self._client(permissive=True) as (handle, _):
            for flag in (nbd.CMD_FLAG_DF, nbd.CMD_FLAG_REQ_ONE, 1 << 5, 1 << 15):
                self._expect(errno.EINVAL, handle.pwrite, bytes(5000), 0, flag)
                self._expect(errno.EINVAL, handle.flush, flag)
                self._expect(errno.EINVAL, handle.trim, 4096, 0, flag)
            self._expect(errno.EINVAL, handle.pread, 1, 0, nbd.CMD_FLAG_NO_HOLE)
            self._expect(errno.EINVAL, handle.trim, 4096, 0, nbd.CMD_FLAG_FAST_ZERO)
            self.assertEqual(handle.pread(3, 1), b"\xa5" * 3)

    def a_command_that_is_not_served_is_einval_and_the_connection_goes_on(self):
        with self._client(permissive=True) as (handle, _):
            self._expect(errno.EINVAL, handle.cache, 4096, 0)
            self.assertEqual(handle.pread(3, 1), b"\xa5" * 3)

    def requests_of_no_length_are_answered(self):
        with self._client(permissive=True) as (handle, image):
            for offset in (0, 77, SIZE):
                handle.pwrite(b"", offset)
                handle.trim(0, offset)
                handle.zero(0, offset)
                self.assertEqual(handle.pread(0, offset), b"")
            self._expect(errno.EINVAL, handle.pread, 0, SIZE + 1)
        self.assert_same_bytes(image.read_bytes(), b"\xa5" * SIZE)


if __name__ == "__main__":
    served.main(Commands)
