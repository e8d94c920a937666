# stress-ng's stressors of file systems, one after the other, for a bounded time each, on ext4 and xfs over the device.
# timeout: 360

stressors=(dentry dir hdd fallocate iomix rename seek sync-file xattr fpunch)
for kind in ext4 xfs; do
  step "$kind"
  truncate -s 320M "/mnt/$kind/disk.img"
  start_server "/mnt/$kind/disk.img"
  attach localhost /dev/nbd0
  mkfs -t "$kind" -q /dev/nbd0
  mount /dev/nbd0 /mnt/nbd
  for stressor in "${stressors[@]}"; do
    stress-ng --quiet --"$stressor" 2 --timeout 2s \
      --hdd-bytes 8m --iomix-bytes 8m --fallocate-bytes 32m --seek-size 8m --sync-file-bytes 8m --temp-path /mnt/nbd || fail "stress-ng --$stressor"
  done
  umount /mnt/nbd
  if [[ $kind == ext4 ]]; then fsck.ext4 -f -n /dev/nbd0; else xfs_repair -n /dev/nbd0; fi
  detach /dev/nbd0
  stop_server
done
