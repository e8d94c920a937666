# Swap on the device: a program with a quarter of its memory in RAM and the rest behind NBD reads back every page.
# Its memory is limited by a control group, so that the server, on the same machine, is not itself swapped out.
# timeout: 240

truncate -s 160M /mnt/ext4/disk.img
start_server /mnt/ext4/disk.img
attach -swap localhost /dev/nbd0
mkswap /dev/nbd0
swapon /dev/nbd0
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/pressed
echo 32M >/sys/fs/cgroup/pressed/memory.max
swapped_out() { awk '$1 == "pswpout" { print $2 }' /proc/vmstat; }
before=$(swapped_out)
(
  echo "$BASHPID" >/sys/fs/cgroup/pressed/cgroup.procs
  exec /usr/bin/python3 "$kernel_folder/guest/pressure.py" 96
)
expect_that "MiB swapped out" $((($(swapped_out) - before) / 256)) -ge 60
swapoff /dev/nbd0
detach /dev/nbd0
stop_server
