# A SCSI disk with sectors that cannot be read; and one that is unplugged under load: everybody is told, nobody waits, and
# the server ends as ever.
# timeout: 120
# provokes: I/O error|Buffer I/O|medium error|Medium Error

source "$kernel_folder/guest/faults.sh"
modprobe sd_mod
modprobe scsi_debug dev_size_mb=64 delay=0 lbpu=1 lbpws=1 opts=2 medium_error_start=65536 medium_error_count=4
disk_is_there() { compgen -G "/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/sd*" >/dev/null; }
wait_until 20 disk_is_there
disk=$(basename /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/sd*)
wait_until 20 test -b "/dev/$disk"

step "sectors that cannot be read"
serve "/dev/$disk"
faults unreadable-spot $((65536 * 512)) 2048
stop_server

step "the disk goes away"
serve "/dev/$disk"
faults vanish "/sys/block/$disk/device/delete"
stop_server
