# Read-only by the server's word or by the client's: the device itself refuses, and the image keeps its bytes.
# timeout: 90

mkfs.ext4 -q -E lazy_itable_init=0 /mnt/ext4/disk.img 16M
sum=$(sha256sum </mnt/ext4/disk.img)

refuse_writes() {
  expect "read-only" "$(of_device nbd0 ro)" 1
  must_fail dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct status=none
  must_fail blkdiscard /dev/nbd0
  must_fail blkdiscard --zeroout /dev/nbd0
  mount -t ext4 /dev/nbd0 /mnt/nbd
  must_fail mount -o remount,rw /mnt/nbd
  must_fail touch /mnt/nbd/file
  umount /mnt/nbd
}

step "The server says so"
start_server --read-only /mnt/ext4/disk.img
attach localhost /dev/nbd0
refuse_writes
detach /dev/nbd0
stop_server

step "The client says so"
start_server /mnt/ext4/disk.img
attach -R localhost /dev/nbd0
refuse_writes
detach /dev/nbd0
stop_server

expect "the image's checksum" "$(sha256sum </mnt/ext4/disk.img)" "$sum"
