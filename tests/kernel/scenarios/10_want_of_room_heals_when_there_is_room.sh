# A file system that is full, and a quota that is used up, on ext4 and on xfs: what needs room is refused with ENOSPC, what
# needs none goes on, and once there is room again everything does.
# timeout: 200

source "$kernel_folder/guest/faults.sh"
modprobe quota_v2
for kind in ext4 xfs; do
  step "$kind: a quota"
  disk_of_memory 65536
  case $kind in
    ext4)
      mkfs.ext4 -q -b 4096 -O quota,project -E quotatype=prjquota,lazy_itable_init=0 /dev/ram0
      mount -t ext4 -o prjquota /dev/ram0 /mnt/faulty ;;
    xfs) make_file_system xfs /dev/ram0 -o prjquota ;;
  esac
  mkdir /mnt/faulty/limited
  chattr -p 42 +P /mnt/faulty/limited
  xfs_quota -f -x -c "limit -p bhard=8m 42" /mnt/faulty
  truncate -s 16M /mnt/faulty/limited/disk.img
  serve /mnt/faulty/limited/disk.img
  faults no-room xfs_quota -f -x -c "limit -p bhard=32m 42" /mnt/faulty
  stop_server
  rm -r /mnt/faulty/limited

  step "$kind: a full disk"
  room_kib=$(df --output=avail /mnt/faulty | tail -n 1)
  fallocate -l $(((room_kib - 8192) * 1024)) /mnt/faulty/other
  truncate -s 16M /mnt/faulty/disk.img
  serve /mnt/faulty/disk.img
  faults no-room rm /mnt/faulty/other
  stop_server
  umount /mnt/faulty
done
