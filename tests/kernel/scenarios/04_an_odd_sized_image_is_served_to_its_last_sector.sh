# An image whose size is no multiple of anything: the kernel sees its whole sectors, and the bytes behind them stay.
# timeout: 60

size=$(((4 << 20) + 3 * 512 + 123))
head -c "$size" /dev/urandom >/mnt/ext4/disk.img
cp /mnt/ext4/disk.img before
start_server /mnt/ext4/disk.img
attach -b 512 localhost /dev/nbd0
sectors=$((size / 512))
expect "size in sectors" "$(of_device nbd0 size)" "$sectors"
cmp -n $((sectors * 512)) /dev/nbd0 before

step "The last sectors are written, one by one and with their neighbours"
head -c 512 /dev/urandom >sector
dd if=sector of=/dev/nbd0 bs=512 seek=$((sectors - 1)) oflag=direct status=none
dd if=/dev/nbd0 bs=512 skip=$((sectors - 1)) iflag=direct status=none | cmp - sector
dd if=sector of=before bs=512 seek=$((sectors - 1)) conv=notrunc status=none
dd if=/dev/zero of=/dev/nbd0 bs=$((512 * 5)) seek=$(((sectors - 5) * 512)) count=1 oflag=direct,seek_bytes status=none
dd if=/dev/zero of=before bs=$((512 * 5)) seek=$(((sectors - 5) * 512)) count=1 oflag=seek_bytes conv=notrunc status=none
must_fail dd if=sector of=/dev/nbd0 bs=512 seek="$sectors" oflag=direct status=none

detach /dev/nbd0
stop_server
expect "the image's size" "$(stat -c %s /mnt/ext4/disk.img)" "$size"
cmp /mnt/ext4/disk.img before
