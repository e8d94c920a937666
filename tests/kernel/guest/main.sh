#!/bin/bash
# shellcheck disable=SC2154  # The plan is sourced.
# Process 1 of the guest once the host's root is there: makes the machine complete, runs the scenarios of the plan one
# after the other, and switches off. For each it leaves in the share: NAME.started, NAME.log, NAME.dmesg and, when it
# is over, NAME.result: "passed 12 s", or another verdict and why.
#
# It kills every process between scenarios, so it must never run anywhere else.
if [[ $$ -ne 1 ]] || ! grep -q aionbd.guest /proc/cmdline; then
  echo "main.sh is process 1 of the guest that tests/kernel/run boots, and nothing else." >&2
  exit 1
fi

share=/run/share
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8
# shellcheck disable=SC1091
source "$share/plan"  # kernel_modules, kernel_folder, scenarios, settings
program=/run/aionbd
forgetful=/run/libforgetful_disk.so
export share program forgetful kernel_folder settings

say() { echo "guest: $*" >/dev/console; }

switch_off() {
  sync
  echo o >/proc/sysrq-trigger
  sleep 60
}

prepare() {
  exec </dev/null >/dev/console 2>&1
  mkdir -p /dev/pts /dev/shm
  mount -t devpts devpts /dev/pts
  mount -t tmpfs shm /dev/shm
  mount -t cgroup2 cgroup /sys/fs/cgroup
  mount -t debugfs debug /sys/kernel/debug
  ip link set lo up
  hostname guest
  # The guest's kernel is not the host's, nor are its modules.
  mkdir -p /lib/modules && mount --bind "$kernel_modules" /lib/modules || return
  modprobe -a virtio_blk ext4 xfs loop nbd configfs || return
  mount -t configfs config /sys/kernel/config || return
  cp "$share/aionbd" "$program" || return
  if [[ -e $share/libforgetful_disk.so ]]; then cp "$share/libforgetful_disk.so" "$forgetful" || return; fi
  echo 60 >/proc/sys/kernel/hung_task_timeout_secs
  mkdir -p /mnt/ext4 /mnt/xfs /mnt/nbd
  mount -t ext4 /dev/vda /mnt/ext4 && mount -t xfs /dev/vdb /mnt/xfs
}

# kernel_messages_since NAME: what the kernel said since the scenario began.
kernel_messages_since() {
  dmesg | sed "1,/ aionbd: begin $1\$/d"
}

alarming='WARNING:|BUG:|Oops|general protection|Call Trace|blocked for more than|soft lockup|detected stall'
alarming+='|I/O error|Buffer I/O|EXT4-fs (error|warning)|XFS .*([Cc]orrupt|[Ee]rror|[Ss]hut)|JBD2: .*rror'
alarming+='|[Oo]ut of memory|oom-kill|page allocation failure'

# undo_leftovers: takes down what a scenario left; `left` then names what could not be.
undo_leftovers() {
  local point device
  # First those who use the devices, then the file systems while their server may still answer, then the rest.
  processes | awk '$3 != "aionbd" && $3 != "nbd-client" { print $2 }' | xargs -r kill -KILL
  if [[ $(wc -l </proc/swaps) -gt 1 ]]; then timeout 20 swapoff -a; fi
  for point in $(nbd_devices_mounted); do timeout 20 umount "$point" || umount -l "$point"; done
  for device in $(nbd_devices_attached); do timeout 10 nbd-client -d "/dev/$device"; done
  processes | awk '{ print $2 }' | xargs -r kill -KILL
  echo 1 >/sys/devices/system/cpu/cpu1/online
  for _ in {1..20}; do
    for point in $(scenarios_mounts); do timeout 20 umount "$point"; done
    if [[ -e /dev/mapper/control ]]; then DM_DISABLE_UDEV=1 dmsetup remove_all; fi
    left=$(nbd_devices_mounted; nbd_devices_attached; scenarios_mounts; mapped_devices; processes)
    [[ -n $left ]] || break
    sleep 0.5
  done
  find /mnt/ext4 /mnt/xfs -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +
  # Without what is mounted there: the project itself may lie in /tmp.
  find /tmp /dev/shm -xdev -mindepth 1 -delete 2>/dev/null
  find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d -exec rmdir {} +
  losetup -D
  if [[ -e /sys/kernel/config/nullb ]]; then find /sys/kernel/config/nullb -mindepth 1 -type d -exec rmdir {} +; fi
  for device in scsi_debug null_blk brd; do
    if [[ -e /sys/module/$device ]]; then rmmod "$device"; fi
  done
}

nbd_devices_attached() {
  local each
  for each in /sys/block/nbd*/pid; do
    if [[ -e $each ]]; then basename "$(dirname "$each")"; fi
  done
}

nbd_devices_mounted() { awk '$1 ~ "^/dev/nbd" { print $2 }' /proc/mounts; }
# The guest's own are /mnt/ext4 and /mnt/xfs.
scenarios_mounts() { awk '$2 ~ "^/mnt/" && $1 !~ "^/dev/(vd|nbd)" { print $2 }' /proc/mounts; }
mapped_devices() { find /sys/block -name 'dm-*'; }

# processes: session, number, name and arguments of what the scenario started. It is a session of its own; process 1,
# its subshells and the kernel's threads are in session 0.
processes() { ps -e -o sid=,pid=,comm=,args= | awk '$1 != 0'; }

run_scenario() {
  local path=$1 name limit provokes status verdict left began=$SECONDS
  name=$(basename "$path" .sh)
  limit=$(sed -n 's/^# timeout: //p' "$path")
  provokes=$(sed -n 's/^# provokes: //p' "$path")
  say "$name"
  echo "$limit" >"$share/$name.started"
  echo "aionbd: begin $name" >/dev/kmsg
  mkdir -p /tmp/scenario
  cd /tmp/scenario || return

  setsid --wait timeout --kill-after=5 "$limit" bash "$kernel_folder/guest/run_steps.sh" "$path" >"$share/$name.log" 2>&1
  status=$?
  case $status in
    0) verdict="passed" ;;
    77) verdict="skipped" ;;
    *)
      verdict="failed"
      if [[ $((SECONDS - began)) -ge $limit ]]; then verdict+=": not done after $limit s"; fi ;;
  esac
  cd /
  left=
  undo_leftovers >>"$share/$name.log" 2>&1
  if [[ -n $left ]]; then verdict="failed: left behind: $left"; fi

  kernel_messages_since "$name" >"$share/$name.dmesg"
  if grep -E "$alarming" "$share/$name.dmesg" | grep -v -E "${provokes:-^\$}" >"$share/$name.alarms"; then
    [[ $verdict == passed ]] && verdict="failed: the kernel complained: $(head -n 1 "$share/$name.alarms")"
  fi
  echo "$verdict ($((SECONDS - began)) s)" >"$share/$name.result.new"
  mv "$share/$name.result.new" "$share/$name.result"
  say "$name: $verdict ($((SECONDS - began)) s)"
  [[ -z $left ]]
}

if ! prepare; then
  say "could not be prepared"
  switch_off
fi
say "ready after $(cut -d' ' -f1 /proc/uptime) s"
for scenario in "${scenarios[@]}"; do
  # A machine that could not be tidied up is no place for the next one; the host boots another.
  run_scenario "$scenario" || break
done
say "done"
umount /mnt/ext4 /mnt/xfs
switch_off
