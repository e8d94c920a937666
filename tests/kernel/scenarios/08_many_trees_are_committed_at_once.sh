# 24 trees in the way of version control, at once: many small files, each fsynced and renamed into place.
# timeout: 240

truncate -s 128M /mnt/ext4/disk.img
start_server --threads 2 /mnt/ext4/disk.img
attach -C 2 localhost /dev/nbd0
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 /mnt/nbd
/usr/bin/python3 "$kernel_folder/guest/file_tree.py" commit /mnt/nbd 24 3
sums=$(sums_of /mnt/nbd)
umount /mnt/nbd
fsck.ext4 -f -n /dev/nbd0
detach /dev/nbd0
stop_server

start_server /mnt/ext4/disk.img
attach localhost /dev/nbd0
mount /dev/nbd0 /mnt/nbd
expect "the checksum of all trees" "$(sums_of /mnt/nbd)" "$sums"
expect "files" "$(find /mnt/nbd -type f | wc -l)" $((24 * (3 * 6 + 1)))
umount /mnt/nbd
detach /dev/nbd0
stop_server
