# The server dies by SIGKILL in the middle of writes, and the client was not told to hold requests: writers see an error,
# the mount goes away; attached again, the journal is replayed, fsck is content, and what was fsynced is there.
#
# This is the ioctl interface with -persist. The driver reports the end of such a connection as a success,
# which nbd-client 3.24 takes for a wish to stop: it does not come back, and whoever wants reconnection uses netlink.
# timeout: 240
# provokes: I/O error|EXT4-fs|JBD2|Buffer I/O

truncate -s 96M /mnt/xfs/disk.img
start_server /mnt/xfs/disk.img
attach -nonetlink -persist localhost /dev/nbd0
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 /mnt/nbd
: >ledger
/usr/bin/python3 "$kernel_folder/guest/ledger.py" files /mnt/nbd ledger 2>writer.log &
writer=$!

has_written() { [[ $(wc -l <ledger) -ge $1 ]]; }
is_gone() { [[ ! -d /proc/$1 ]]; }
wait_until 60 has_written 40
kill -KILL "$server_pid"
wait "$server_pid" || true
wait_until 60 is_gone "$writer"
grep -E "Input/output error|Read-only file system" writer.log || fail "the writer ended in another way: $(cat writer.log)"
umount /mnt/nbd
wait_until 20 is_detached nbd0

start_server /mnt/xfs/disk.img
sleep 2  # A client that does come back is welcome.
has_size nbd0 || attach localhost /dev/nbd0
mount /dev/nbd0 /mnt/nbd
/usr/bin/python3 "$kernel_folder/guest/ledger.py" audit-files /mnt/nbd ledger
umount /mnt/nbd
fsck.ext4 -f -n /dev/nbd0
detach /dev/nbd0
stop_server
