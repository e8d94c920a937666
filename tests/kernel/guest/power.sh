# shellcheck shell=bash
# shellcheck disable=SC2154  # `kernel_folder` comes from main.sh.
# The disks of the power cuts, in memory, which are served themselves or with a file system on them.
#
# Of a recording: $disk is changed; ram1 takes the log of what is written to it; ram2 is $disk as it was, to which the log
# is replayed; ram3 takes what happens after a cut. Under load: $disk has a cache, which it loses with its power.
#
# Read by scenarios, which then say recorded_cuts or live_cuts.

power=$kernel_folder/guest/power_cuts.py
disk_sectors=131072
image_bytes=$(((2 << 20) + 3 * 512 + 100))
export DM_DISABLE_UDEV=1
# The tree is read-only here, and to compile it each time takes longer than to run it.
export PYTHONPYCACHEPREFIX=/tmp/compiled
mkdir -p /mnt/power
modprobe -a dm-flakey dm-log-writes dm-snapshot
if [[ ! -e /sys/kernel/config/nullb ]]; then modprobe null_blk nr_devices=0; fi

# null_disk ATTRIBUTE=VALUE...: sets $disk, which is empty.
null_disk() {
  local folder=/sys/kernel/config/nullb/power each
  if [[ -e $folder ]]; then rmdir $folder; fi
  mkdir $folder
  for each in size=$((disk_sectors / 2048)) memory_backed=1 "$@" power=1; do
    echo "${each#*=}" >"$folder/${each%=*}"
  done
  # Older kernels count them, newer ones call them as the folder is called.
  disk=/dev/power
  if [[ ! -b $disk ]]; then disk=/dev/nullb$(<$folder/index); fi
}

# disks_to_record KIND: made anew, they are empty.
disks_to_record() {
  if [[ -e /sys/module/brd ]]; then rmmod brd; fi
  modprobe brd rd_nr=4 rd_size=$((disk_sectors * 2))
  disk=/dev/ram0
  # By bios, it answers at once, as ram0 does.
  if [[ $1 == raw4096 ]]; then null_disk blocksize=4096 queue_mode=0 discard=1; fi
}

# disk_with_cache KIND: 1 MiB of it.
disk_with_cache() {
  case $1 in
    raw) null_disk blocksize=512 cache_size=1 discard=1 ;;
    raw4096) null_disk blocksize=4096 cache_size=1 discard=1 ;;
    *) null_disk blocksize=512 cache_size=1 ;;
  esac
}

# make_image KIND: it has data in its first third, space that was never written in the second, and then a hole.
make_image() {
  case $1 in
    ext4) mkfs.ext4 -q -b 4096 -N 256 -J size=4 -E lazy_itable_init=0,nodiscard "$disk" $((disk_sectors / 8)) ;;
    xfs) mkfs.xfs -q -K --unsupported -d size=$((disk_sectors * 512)) -l size=8m "$disk" 2>/dev/null ;;
    *) return ;;
  esac
  mount -t "$1" "$disk" /mnt/power
  dd if=/dev/zero of=/mnt/power/disk.img bs=4k count=170 conv=fsync status=none
  fallocate -o $((170 * 4096)) -l $((170 * 4096)) /mnt/power/disk.img
  truncate -s "$image_bytes" /mnt/power/disk.img
  umount /mnt/power
}

# recorded_cuts KIND CUTS ANSWERS BY [--until-loss]: of a recording of so many answers, in which changes are promised by
# "flush", "fua" or "both". $server_preload comes before the server, here and below.
recorded_cuts() {
  disks_to_record "$1"
  make_image "$1"
  case $1 in
    ext4 | xfs) dd if="$disk" of=/dev/ram2 bs=1M count=$((disk_sectors / 2048)) conv=sparse,fsync status=none ;;
  esac
  power_cuts recorded "$1" "$disk" "${@:2}"
}

# live_cuts KIND CUTS BY
live_cuts() {
  disk_with_cache "$1"
  make_image "$1"
  power_cuts live "$1" "$disk" "${@:2}"
}

# power_cuts WHAT...: with the number that --settings may have behind the first, for another random run.
power_cuts() {
  SEED=$(cut -d' ' -f2 <<<"${settings:-1 1} 1") SERVER_PRELOAD=${server_preload:-} /usr/bin/python3 "$power" "$@"
}
