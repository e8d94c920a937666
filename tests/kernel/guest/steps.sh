# shellcheck shell=bash
# shellcheck disable=SC2154  # `program`, aionbd's path, and `kernel_folder`, this part of the tree, come from main.sh.
# The words that scenarios are written in. Read by run_steps.sh, in the guest.
#
# Folders on real (virtual) disks, where direct I/O is direct: /mnt/ext4 and /mnt/xfs. The working folder is memory.

# --- Facts ---------------------------------------------------------------------------------------------------------

fail() {
  echo "FAILED: $*"
  trap - ERR
  exit 1
}

failed_at() {
  echo "FAILED: $(basename "$1"):$2: $3"
  trap - ERR
}

# expect WHAT FOUND WANTED
expect() {
  [[ $2 == "$3" ]] || fail "$1 is '$2', not '$3'"
  echo "ok: $1 is '$2'"
}

# expect_that WHAT CONDITION...: CONDITION is words for [[ ]]'s sister, test.
expect_that() {
  local what=$1
  shift
  test "$@" || fail "$what: not so: $*"
  echo "ok: $what: $*"
}

# must_fail COMMAND...
must_fail() {
  if "$@"; then fail "succeeded, and must not: $*"; fi
  echo "ok: refused: $*"
}

# wait_until SECONDS CONDITION...: a command that comes true.
wait_until() {
  local limit=$((SECONDS + $1))
  shift
  until "$@"; do
    if [[ $SECONDS -ge $limit ]]; then fail "in vain waited for: $*"; fi
    sleep 0.1
  done
}

step() { printf '\n--- %s (%d s)\n' "$*" "$SECONDS"; }

# --- The server ----------------------------------------------------------------------------------------------------

server_logs=()

# start_server ARGUMENT...: sets server_pid and server_log once it listens.
start_server() {
  server_log=/tmp/server.${#server_logs[@]}.log
  server_logs+=("$server_log")
  "$program" "$@" 2>"$server_log" &
  server_pid=$!
  local limit=$((SECONDS + 20))
  until grep -q 'listening on' "$server_log"; do
    if [[ ! -d /proc/$server_pid || $SECONDS -ge $limit ]]; then fail "aionbd $* does not listen"; fi
    sleep 0.05
  done
}

# stop_server [PID]: asks it to stop and wants a clean end.
stop_server() {
  local pid=${1:-$server_pid} status=0
  kill -TERM "$pid"
  wait "$pid" || status=$?
  expect "the server's exit status" "$status" 0
}

tell_server_logs() {
  local log
  for log in "${server_logs[@]}"; do
    echo "--- $log"
    tail -n 40 "$log"
  done
  return "$1"
}

# --- The client ----------------------------------------------------------------------------------------------------

# attach ARGUMENT...: nbd-client; its device must then have a size.
attach() {
  local argument device=
  for argument in "$@"; do
    if [[ $argument == /dev/nbd* ]]; then device=${argument#/dev/}; fi
  done
  nbd-client "$@" || fail "nbd-client $*"
  wait_until 10 has_size "$device"
}

has_size() { [[ $(<"/sys/block/$1/size") -gt 0 ]]; }
is_detached() { [[ ! -e /sys/block/$1/pid ]]; }

# detach DEVICE
detach() {
  nbd-client -d "$1"
  wait_until 20 is_detached "${1#/dev/}"
}

# of_device DEVICE NAME: what the kernel knows of the device's queue, or of the device.
of_device() {
  local folder=/sys/block/${1#/dev/}
  if [[ -e $folder/queue/$2 ]]; then cat "$folder/queue/$2"; else cat "$folder/$2"; fi
}

# --- Files ---------------------------------------------------------------------------------------------------------

allocated_kib() { echo $(($(stat -c %b "$1") / 2)); }

# write_tree FOLDER COUNT: files of many sizes, empty and odd ones among them, in folders.
write_tree() {
  /usr/bin/python3 "$kernel_folder/guest/file_tree.py" write "$1" "$2"
}

# sums_of FOLDER: one checksum over names and contents.
sums_of() {
  (cd "$1" && find . -type f ! -path './lost+found/*' -print0 | sort -z | xargs -0 -r sha256sum | sha256sum | cut -c1-64)
}

drop_caches() {
  sync
  echo 3 >/proc/sys/vm/drop_caches
}
