# The same load, and the power goes while it lasts: from a random moment on the disk says yes and writes nothing
# (dm-flakey), and mostly it loses its cache. The server is killed, the journal is replayed, a new server must tell what the
# old one promised before that moment. Then on with the same disk.
#
# --settings 'N SEED' makes N cuts of each kind, of another random run.
# timeout: 2400

source "$kernel_folder/guest/power.sh"
read -r cuts _ <<<"${settings:-25}"
for kind in ext4 xfs raw raw4096; do
  step "$kind"
  live_cuts "$kind" "$cuts" both
done
