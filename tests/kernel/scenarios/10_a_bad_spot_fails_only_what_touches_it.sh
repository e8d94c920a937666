# Four KiB of the disk fail, of a disk that is served itself and under a file on ext4 and on xfs: who asks for them is told
# so, who asks for their neighbours is not. A durable write that failed is told to every client as a failed sync, once.
# timeout: 200
# provokes: I/O error|Buffer I/O

source "$kernel_folder/guest/faults.sh"
sectors=131072
disk_of_memory $((sectors / 2))
healthy="0 $sectors linear /dev/ram0 0"

# break_at SECTOR
break_at() {
  dmsetup load bad <<TABLE
0 $1 linear /dev/ram0 0
$1 8 error
$(($1 + 8)) $((sectors - $1 - 8)) linear /dev/ram0 $(($1 + 8))
TABLE
  dmsetup suspend --noflush --nolockfs bad
  dmsetup resume bad
}

dmsetup create bad --table "$healthy"
step "a disk"
break_at 40000
serve /dev/mapper/bad
faults bad-spot $((40000 * 512)) 4096
stop_server

for kind in ext4 xfs; do
  step "$kind"
  dmsetup load bad --table "$healthy"
  dmsetup resume bad
  make_file_system "$kind" /dev/mapper/bad
  dd if=/dev/zero of=/mnt/faulty/disk.img bs=1M count=16 conv=fsync status=none
  sector=$(physical_sector /mnt/faulty/disk.img 16384)
  expect_that "the spot lies at sector" "$sector" -gt 0
  break_at "$sector"
  serve /mnt/faulty/disk.img
  faults bad-spot $((16384 * 512)) 4096
  stop_server
  umount /mnt/faulty
done
dmsetup remove bad
