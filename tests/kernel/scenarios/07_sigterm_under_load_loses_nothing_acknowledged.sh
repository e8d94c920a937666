# SIGTERM while four processes write: the server answers what it has, ends with status 0, and every block that was
# acknowledged is in the image. The kernel's driver sees the connection end, not break.
# timeout: 120
# provokes: I/O error|Buffer I/O

truncate -s 32M /mnt/ext4/disk.img
start_server --threads 2 /mnt/ext4/disk.img
# Requests whose connection ended without an answer are given up by the driver after this time.
attach -C 2 -t 10 localhost /dev/nbd0
/usr/bin/python3 "$kernel_folder/guest/ledger.py" blocks /dev/nbd0 ledger &
writers=$!
have_written() { [[ $(cat ledger.* 2>/dev/null | wc -l) -ge $1 ]]; }
wait_until 60 have_written 400

stop_server
wait "$writers"
grep -q "stopped" "$server_log" || fail "the server did not say that it stopped"
/usr/bin/python3 "$kernel_folder/guest/ledger.py" audit-blocks /mnt/ext4/disk.img ledger
must_fail grep -E "result -104" <(dmesg | sed '1,/aionbd: begin 07/d')
expect "writers that saw an end" "$(cat ledger.* | grep -c unanswered)" 4
detach /dev/nbd0
