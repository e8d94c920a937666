# The measurement of tests/bench/loop_table.sh, in the form of a scenario of tests/kernel.
# timeout: 9000

modprobe loop
# shellcheck disable=SC2086,SC2154  # The settings are words; `settings`, `share` and `program` come from the guest.
/usr/bin/python3 -B "$kernel_folder/../bench/loop_table/measure.py" $settings --program "$program" \
  --image /mnt/ext4/disk.img --result "$share/result.json"
