# A block device as the backing: one of memory (brd) and a null device with a memory of its own, with sectors of 4096.
# timeout: 200

modprobe brd rd_nr=1 rd_size=65536
modprobe null_blk nr_devices=1 gb=1 bs=4096 memory_backed=1 discard=1

for backing in /dev/ram0 /dev/nullb0; do
  step "$backing, sectors of $(blockdev --getss "$backing")"
  start_server "$backing"
  attach localhost /dev/nbd0
  expect "size in bytes" "$(blockdev --getsize64 /dev/nbd0)" "$(blockdev --getsize64 "$backing")"
  # Sectors of 512 on a device of 4096: the server patches.
  fio --name=small --filename=/dev/nbd0 --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --size=4M \
    --bssplit=512/40:1k/20:4k/20:32k/20 --verify=crc32c --verify_fatal=1 --fallocate=none \
    --output-format=terse --output=fio.out || { cat fio.out; fail "fio found a difference"; }
  mkfs.ext4 -q -b 4096 /dev/nbd0 60M
  mount /dev/nbd0 /mnt/nbd
  write_tree /mnt/nbd/tree 40
  sums=$(sums_of /mnt/nbd/tree)
  umount /mnt/nbd
  detach /dev/nbd0
  stop_server
  # What the server wrote is on the device, and nowhere else.
  drop_caches
  mount -o ro "$backing" /mnt/nbd
  expect "the tree's checksum" "$(sums_of /mnt/nbd/tree)" "$sums"
  umount /mnt/nbd
done
