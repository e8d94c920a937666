# The server dies by SIGKILL in the middle of writes, three times, and is started again: with a dead connection time-out
# the kernel holds the requests and sends them again to the new server. The writer sees no error, what was fsynced is
# there, and the file system is clean.
# timeout: 240

truncate -s 96M /mnt/xfs/disk.img
start_server /mnt/xfs/disk.img
# What was in flight when a connection died is sent again after the time-out for requests, and not without one.
attach -t 3 localhost /dev/nbd0
/usr/bin/python3 "$kernel_folder/guest/reconfigure.py" keep 0 100
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 /mnt/nbd
: >ledger
/usr/bin/python3 "$kernel_folder/guest/ledger.py" files /mnt/nbd ledger &
writer=$!

has_written() { [[ $(wc -l <ledger) -ge $1 ]]; }
for round in 1 2 3; do
  wait_until 60 has_written $((round * 20))
  kill -KILL "$server_pid"
  wait "$server_pid" || true
  if [[ $round -eq 2 ]]; then sleep 6; fi  # Longer than the requests' time-out: now it is the other one that holds them.
  start_server /mnt/xfs/disk.img
  /usr/bin/python3 "$kernel_folder/guest/reconfigure.py" connect 0 nbd://localhost
done
wait_until 60 has_written 100
expect_that "the writer is still at it" -d "/proc/$writer"
kill -TERM "$writer"
wait "$writer" || true

umount /mnt/nbd
fsck.ext4 -f -n /dev/nbd0
mount /dev/nbd0 /mnt/nbd
/usr/bin/python3 "$kernel_folder/guest/ledger.py" audit-files /mnt/nbd ledger
umount /mnt/nbd
detach /dev/nbd0
stop_server
