# nbd-client -b chooses the block size of the device; the bytes are the same for each.
# timeout: 60

truncate -s 16M /mnt/ext4/disk.img
start_server /mnt/ext4/disk.img
head -c 1M /dev/urandom >content
for size in 512 1024 4096; do
  step "-b $size"
  attach -b "$size" localhost /dev/nbd0
  expect "logical block size" "$(of_device nbd0 logical_block_size)" "$size"
  expect "size in bytes" "$(blockdev --getsize64 /dev/nbd0)" $((16 << 20))
  # One block at a time, at an offset that larger blocks do not have.
  dd if=content of=/dev/nbd0 bs="$size" seek=3 count=64 oflag=direct status=none
  dd if=/dev/nbd0 bs="$size" skip=3 count=64 iflag=direct status=none | cmp -n $((64 * size)) - content
  cmp -n $((64 * size)) -i $((3 * size)):0 /mnt/ext4/disk.img content
  if [[ $size -gt 512 ]]; then
    must_fail dd if=/dev/nbd0 of=/dev/null bs=512 count=1 iflag=direct status=none
  fi
  detach /dev/nbd0
done
stop_server
