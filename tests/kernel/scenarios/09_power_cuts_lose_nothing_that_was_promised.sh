# Four clients write, write durably, flush, trim and zero, all at random and down to single bytes, on ext4, on xfs, on a disk
# itself and on one with sectors of 4096, while everything that reaches the disk is logged. Then the power goes, at random
# points of the log: what was flushed or forced to the disk is there, what was in its cache is there, or not, or in part; the
# journal is replayed. Every byte that a flush or FUA covered must be that or something newer, no sector may be torn, or hold
# what belongs elsewhere, and nothing beside a change may be any other than before.
#
# --settings 'N SEED' makes N cuts of each kind, of another random run.
# timeout: 2400

source "$kernel_folder/guest/power.sh"
read -r cuts _ <<<"${settings:-20}"
for kind in ext4 xfs raw raw4096; do
  step "$kind"
  recorded_cuts "$kind" "$cuts" 1000 both
done
