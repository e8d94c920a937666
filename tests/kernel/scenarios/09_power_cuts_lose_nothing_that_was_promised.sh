# Four clients write, write durably, flush, trim and zero, all at random, on ext4, on xfs and on a disk itself, while
# everything that reaches the disk is logged. Then the power goes, at random points of the log: what was flushed or forced
# to the disk is there, what was in its cache is there, or not, or in part; the journal is replayed. Every sector that a
# flush or FUA covered must hold that or something newer, none may be torn, or hold what belongs elsewhere.
#
# --settings 'N SEED' makes N cuts of each kind, of another random run.
# timeout: 1200

source "$kernel_folder/guest/power.sh"
read -r cuts _ <<<"${settings:-30}"
for kind in ext4 xfs raw; do
  step "$kind"
  make_disk "$kind"
  record_changes "$kind" 1000 both
  power_cuts replay history "$kind" "$cuts"
done
