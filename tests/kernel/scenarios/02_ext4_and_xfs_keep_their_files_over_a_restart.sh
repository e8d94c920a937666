# A file system on the device: its files are read back by checksum, also from a server started anew; what was deleted
# and trimmed is no longer allocated in the image; and the file system's own check finds nothing.
# timeout: 300

keep_files() {
  local kind=$1 image=/mnt/$1/disk.img size_mib=$2 check=$3 sums before after
  step "$kind"
  truncate -s "${size_mib}M" "$image"
  start_server "$image"
  attach localhost /dev/nbd0
  mkfs -t "$kind" -q /dev/nbd0
  mount -t "$kind" /dev/nbd0 /mnt/nbd
  write_tree /mnt/nbd/tree 150
  head -c 32M /dev/urandom >/mnt/nbd/large
  sync
  sums=$(sums_of /mnt/nbd/tree)
  write_tree /tmp/same 150
  expect "the tree's checksum" "$(sums_of /tmp/same)" "$sums"
  drop_caches
  expect "the tree's checksum from the device" "$(sums_of /mnt/nbd/tree)" "$sums"

  step "$kind: trim"
  rm /mnt/nbd/large
  sync
  before=$(allocated_kib "$image")
  fstrim -v /mnt/nbd
  after=$(allocated_kib "$image")
  expect_that "KiB allocated fell with the trim" $((before - after)) -ge $((30 << 10))
  umount /mnt/nbd
  $check /dev/nbd0
  detach /dev/nbd0
  stop_server

  step "$kind: a server started anew"
  start_server "$image"
  attach localhost /dev/nbd0
  mount -t "$kind" /dev/nbd0 /mnt/nbd
  expect "the tree's checksum from a new server" "$(sums_of /mnt/nbd/tree)" "$sums"
  expect_that "the image is sparse, KiB" "$(allocated_kib "$image")" -lt $((size_mib * 1024 / 2))
  umount /mnt/nbd
  detach /dev/nbd0
  stop_server
  rm "$image"
}

keep_files ext4 128 "fsck.ext4 -f -n"
keep_files xfs 320 "xfs_repair -n"
