# shellcheck shell=bash
# shellcheck disable=SC2154  # `kernel_folder` comes from main.sh.
# The disks of the power cuts, in memory: ram0 is served, itself or with a file system on it; ram1 takes the log of what
# is written to it; ram2 is ram0 as it was, to which the log is replayed; ram3 takes what happens after a cut.
#
# Read by scenarios, which then say make_disk, and either record_changes and power_cuts replay, or power_cuts live.

power=$kernel_folder/guest/power_cuts.py
disk_sectors=131072
image_bytes=$(((2 << 20) + 3 * 512 + 100))
export DM_DISABLE_UDEV=1
mkdir -p /mnt/power
modprobe -a dm-flakey dm-log-writes dm-snapshot

# make_disk KIND: its image has data in its first third, space that was never written in the second, and then a hole.
make_disk() {
  # Made anew, they are empty.
  if [[ -e /sys/module/brd ]]; then rmmod brd; fi
  modprobe brd rd_nr=4 rd_size=$((disk_sectors * 2))
  case $1 in
    ext4) mkfs.ext4 -q -b 4096 -N 256 -J size=4 -E lazy_itable_init=0,nodiscard /dev/ram0 $((disk_sectors / 8)) ;;
    xfs) mkfs.xfs -q -K --unsupported -d size=$((disk_sectors * 512)) -l size=8m /dev/ram0 2>/dev/null ;;
    raw) return ;;
  esac
  mount -t "$1" /dev/ram0 /mnt/power
  dd if=/dev/zero of=/mnt/power/disk.img bs=4k count=170 conv=fsync status=none
  fallocate -o $((170 * 4096)) -l $((170 * 4096)) /mnt/power/disk.img
  truncate -s "$image_bytes" /mnt/power/disk.img
  umount /mnt/power
}

# record_changes KIND ANSWERS BY: has four clients change the disk, with what is promised by "flush", "fua" or "both", and
# kills the server, which has $server_preload before it.
record_changes() {
  local served=/dev/mapper/recorded
  dd if=/dev/ram0 of=/dev/ram2 bs=1M count=$((disk_sectors / 2048)) conv=sparse,fsync status=none
  dmsetup create recorded --table "0 $disk_sectors log-writes /dev/ram0 /dev/ram1"
  if [[ $1 != raw ]]; then
    mount -t "$1" $served /mnt/power
    served=/mnt/power/disk.img
  fi
  one_at_a_time
  LD_PRELOAD=${server_preload:-} start_server --threads 2 --unix /tmp/power.sock $served
  power_cuts record history "$2" "$3"
  kill -KILL "$server_pid"
  wait "$server_pid" || true
  many_at_a_time
  if [[ $1 != raw ]]; then umount /mnt/power; fi
  dmsetup remove recorded
}

# cut_under_load KIND CUTS BY
cut_under_load() {
  local status=0
  dmsetup create flakey --table "0 $disk_sectors flakey /dev/ram0 0 3600 0"
  power_cuts live "$@" || status=$?
  dmsetup remove flakey
  return "$status"
}

# one_at_a_time: two flushes at once may come into the log the wrong way round, each with its writes. With one processor,
# and a kernel that is not interrupted by another task, a flush of a disk in memory is over before the next one begins.
one_at_a_time() {
  echo 0 >/sys/devices/system/cpu/cpu1/online
  echo none >/sys/kernel/debug/sched/preempt
}

many_at_a_time() {
  echo voluntary >/sys/kernel/debug/sched/preempt
  echo 1 >/sys/devices/system/cpu/cpu1/online
}

# power_cuts WHAT...: with the number that --settings may have behind the first, for another random run.
power_cuts() { SEED=$(cut -d' ' -f2 <<<"${settings:-1 1} 1") /usr/bin/python3 "$power" "$@"; }
