# nbd-client shakes hands by TLS in a process of its own, which then stands between the kernel and the server. It comes in
# by its certificate, and by no other; what was written through it is on the disk. It has TLS 1.2 and nothing newer.
# timeout: 240

truncate -s 64M /mnt/ext4/disk.img
# keygen makes nothing that has expired, so the day before yesterday it made something for one day.
date -s '2 days ago'
"$program" keygen certificates keys --host localhost --client guest >keygen.txt
"$program" keygen certificates keys --client late --days 1 >/dev/null
date -s '2 days'
"$program" keygen certificates others --host localhost --client guest >/dev/null

# What keygen says, for a copy of the client's folder in the working folder.
cp -r keys/clients/guest guest
words=$(sed -n '/^  sudo nbd-client/,/[^\\]$/p' keygen.txt | tr -d '\\' | tr -s ' \n' ' ')
read -r -a words <<<"${words#*/dev/nbd0 }"
echo "keygen says: ${words[*]}"

start_server --tls-certificates keys/server /mnt/ext4/disk.img

step "Whoever has no certificate, one of somebody else, one that has expired, or asks for no TLS stays outside"
must_fail nbd-client localhost /dev/nbd0
must_fail nbd-client localhost /dev/nbd0 -tlshostname localhost -cacertfile guest/ca-cert.pem
must_fail nbd-client localhost /dev/nbd0 -tlshostname localhost -cacertfile guest/ca-cert.pem \
  -certfile others/clients/guest/client-cert.pem -keyfile others/clients/guest/client-key.pem
grep -q 'no TLS: .*peer did not return a certificate, closing' "$server_log" || fail "the log does not know of the one without"
grep -q "no TLS: the client's certificate: unable to get local issuer certificate, closing" "$server_log" ||
  fail "it was not for its authority"
must_fail nbd-client localhost /dev/nbd0 -tlshostname localhost -cacertfile guest/ca-cert.pem \
  -certfile keys/clients/late/client-cert.pem -keyfile keys/clients/late/client-key.pem
grep -q "no TLS: the client's certificate: certificate has expired, closing" "$server_log" || fail "it was not for its age"
expect_that "no device" ! -e /sys/block/nbd0/pid

step "Whoever has, writes and reads"
attach localhost /dev/nbd0 "${words[@]}"
grep -q 'TLSv1.2, ECDHE-ECDSA-AES.*-GCM-.*, CN=guest' "$server_log" || fail "it did not come in as the guest"
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 /mnt/nbd
write_tree /mnt/nbd 40
before=$(sums_of /mnt/nbd)
umount /mnt/nbd
detach /dev/nbd0
attach localhost /dev/nbd0 "${words[@]}"
mount /dev/nbd0 /mnt/nbd
expect "what was written" "$(sums_of /mnt/nbd)" "$before"
umount /mnt/nbd

step "Four megabytes at a time, and the same from the file itself"
head -c 8M /dev/urandom >data
dd if=data of=/dev/nbd0 bs=4M oflag=direct status=none
detach /dev/nbd0
stop_server
cmp -n $((8 << 20)) data /mnt/ext4/disk.img
