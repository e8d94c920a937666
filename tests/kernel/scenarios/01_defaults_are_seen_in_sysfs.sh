# The file served with nothing but its name, and the kernel's client with nothing but its device: the kernel's idea of
# the disk is what the export says.
# timeout: 60

truncate -s 64M /mnt/ext4/disk.img
start_server /mnt/ext4/disk.img
attach localhost /dev/nbd0

expect "size in sectors" "$(of_device nbd0 size)" $((64 * 2048))
expect "size by blockdev" "$(blockdev --getsize64 /dev/nbd0)" $((64 << 20))
expect "read-only" "$(of_device nbd0 ro)" 0
expect "logical block size" "$(of_device nbd0 logical_block_size)" 512
expect "write cache" "$(of_device nbd0 write_cache)" "write back"
expect "FUA" "$(of_device nbd0 fua)" 1
expect_that "discard is offered" "$(of_device nbd0 discard_max_bytes)" -gt 0
expect "discard granularity" "$(of_device nbd0 discard_granularity)" 512
expect "rotational" "$(of_device nbd0 rotational)" 0

step "It reads as zeroes, takes bytes and gives them back"
cmp -n $((64 << 20)) /dev/nbd0 /dev/zero
head -c 1M /dev/urandom >content
dd if=content of=/dev/nbd0 bs=64k seek=16 oflag=direct conv=fsync status=none
dd if=/dev/nbd0 bs=64k skip=16 count=16 iflag=direct status=none | cmp - content
dd if=/mnt/ext4/disk.img bs=64k skip=16 count=16 iflag=direct status=none | cmp - content

detach /dev/nbd0
expect "size once detached" "$(of_device nbd0 size)" 0
stop_server
