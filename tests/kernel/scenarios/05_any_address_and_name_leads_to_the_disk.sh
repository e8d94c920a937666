# A Unix socket, IPv6, a named export, and two devices at the same time.
# timeout: 90

head -c 8M /dev/urandom >/mnt/ext4/first.img
head -c 8M /dev/urandom >/mnt/xfs/second.img
start_server --unix /tmp/first.sock --name first /mnt/ext4/first.img
first=$server_pid
start_server --listen '[::1]:10900' --listen 127.0.0.1:10900 --name second /mnt/xfs/second.img
second=$server_pid

step "Another name leads nowhere, no name to the default"
must_fail nbd-client ::1 10900 /dev/nbd2 -N first
expect_that "no device" ! -e /sys/block/nbd2/pid
attach 127.0.0.1 10900 /dev/nbd2
cmp -n $((8 << 20)) /dev/nbd2 /mnt/xfs/second.img
detach /dev/nbd2

step "Two devices at once, over a Unix socket and over IPv6"
attach -unix /tmp/first.sock /dev/nbd0 -N first
attach ::1 10900 /dev/nbd1 -N second
grep -q '\[::1\].*serving' "$server_log" || fail "the second client did not come over IPv6"
cmp -n $((8 << 20)) /dev/nbd0 /mnt/ext4/first.img
cmp -n $((8 << 20)) /dev/nbd1 /mnt/xfs/second.img
head -c 2M /dev/urandom >one
head -c 2M /dev/urandom >other
dd if=one of=/dev/nbd0 bs=64k oflag=direct status=none &
dd if=other of=/dev/nbd1 bs=64k oflag=direct status=none
wait $!
cmp -n $((2 << 20)) /mnt/ext4/first.img one
cmp -n $((2 << 20)) /mnt/xfs/second.img other

detach /dev/nbd0
detach /dev/nbd1
stop_server "$first"
stop_server "$second"
expect_that "the socket's file is gone" ! -e /tmp/first.sock
