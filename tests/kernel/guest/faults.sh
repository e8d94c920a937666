# shellcheck shell=bash
# shellcheck disable=SC2154  # The server's variables come from steps.sh.
# What scenarios have in common in which the disk below the server fails.

export DM_DISABLE_UDEV=1
mkdir -p /mnt/faulty
modprobe -a dm-mod dm-flakey

# disk_of_memory KIB: /dev/ram0, empty.
disk_of_memory() {
  if [[ -e /sys/module/brd ]]; then rmmod brd; fi
  modprobe brd rd_nr=1 rd_size="$1"
}

# serve FILE
serve() { start_server --threads 2 --unix /tmp/faults.sock "$1"; }

# faults WHAT...: see faults.py.
faults() {
  SERVER_PID=$server_pid SERVER_LOG=$server_log /usr/bin/python3 "$kernel_folder/guest/faults.py" "$@"
}

# physical_sector FILE SECTOR: where on its device a sector of the file lies.
physical_sector() {
  filefrag -v -b512 "$1" | tr ':.' '  ' |
    awk -v wanted="$2" '$1 ~ /^[0-9]+$/ && $2 <= wanted && wanted <= $3 { print $4 + wanted - $2 }'
}

# make_file_system KIND DEVICE: mounts it at /mnt/faulty.
make_file_system() {
  case $1 in
    ext4) mkfs.ext4 -q -b 4096 -E lazy_itable_init=0 "$2" ;;
    xfs) mkfs.xfs -q -f --unsupported -l size=8m "$2" ;;
  esac
  mount -t "$1" "${@:3}" "$2" /mnt/faulty
}
