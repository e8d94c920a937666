# For a while every write and every sync of the disk fails (dm-flakey). Each client that is there is told of the failed sync
# at its next flush or durable write, once; who comes later is not. A file system that gives up over it makes changes fail
# from then on, and nothing hang.
# timeout: 200
# provokes: I/O error|Buffer I/O|EXT4-fs|JBD2|XFS

source "$kernel_folder/guest/faults.sh"
# A disk with a cache, so that syncs reach it.
truncate -s 64M /mnt/ext4/disk
disk=$(losetup --find --show /mnt/ext4/disk)
expect "the disk's cache" "$(of_device "$disk" write_cache)" "write back"
# Made anew each time: the kernel remembers failed writes of a disk for the next to ask.
make_flakey() { dmsetup create flakey --table "0 131072 flakey $disk 0 3600 0"; }

step "a disk"
make_flakey
serve /dev/mapper/flakey
faults failed-sync flakey "$disk"
stop_server
dmsetup remove flakey

for kind in ext4 xfs; do
  step "$kind"
  make_flakey
  make_file_system "$kind" /dev/mapper/flakey
  truncate -s 16M /mnt/faulty/disk.img
  sync
  serve /mnt/faulty/disk.img
  faults failed-journal flakey "$disk"
  stop_server
  umount /mnt/faulty
  dmsetup remove flakey
done
