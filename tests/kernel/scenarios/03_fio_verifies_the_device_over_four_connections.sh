# Four jobs with sizes from 512 bytes on, past the page cache of the client and through it, over four connections.
# timeout: 240

truncate -s 64M /mnt/ext4/disk.img
start_server --threads 2 /mnt/ext4/disk.img
attach -C 4 -b 512 localhost /dev/nbd0
expect "connections the server has" "$(grep -c "serving export" "$server_log")" 4

for direct in 1 0; do
  step "direct=$direct"
  fio --name=mixed --filename=/dev/nbd0 --direct=$direct --ioengine=libaio --iodepth=8 --rw=randwrite \
    --bssplit=512/30:1k/15:4k/25:7k/10:64k/15:192k/5 --numjobs=4 --size=12M --offset_increment=16M \
    --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=$((direct + 1)) --end_fsync=1 \
    --fallocate=none --group_reporting --output-format=terse --output=fio.out || { cat fio.out; fail "fio found a difference"; }
  drop_caches
done

expect "connections at the end" "$(grep -c "serving export" "$server_log")" 4
detach /dev/nbd0
stop_server
