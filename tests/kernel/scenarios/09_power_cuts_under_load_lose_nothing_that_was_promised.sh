# The same load, and the power goes while it lasts: from a random moment on the disk says yes and writes nothing
# (dm-flakey). The server is killed, the journal is replayed, a new server must tell what the old one promised before that
# moment. Then on with the same disk.
#
# --settings 'N SEED' makes N cuts of each kind, of another random run.
# timeout: 300

source "$kernel_folder/guest/power.sh"
read -r cuts _ <<<"${settings:-4}"
for kind in ext4 xfs raw; do
  step "$kind"
  make_disk "$kind"
  dmsetup create flakey --table "0 $disk_sectors flakey /dev/ram0 0 3600 0"
  power_cuts live "$kind" "$cuts"
  dmsetup remove flakey
done
