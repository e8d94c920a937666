#!/bin/bash
# The loop driver's published comparison, buffered against direct I/O below ext4, brought over to NBD: fio psync by four
# jobs on ext4 over the device, in the guest of tests/kernel, everybody on the same image on the same disk, in turn.
#
#   loop_table.sh [--rounds N] [--seconds N] [--mib N] [--memory MIB] [--program AIONBD] [--output FOLDER] [--only NAME,...]
#
# Leaves result.json, table.txt and, where matplotlib is installed, chart.png. With emulated processors only ratios mean
# something; --smoke checks that everybody can be measured, in as little time as that takes.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
repository=$here/../..
rounds=3 seconds=10 mib=192 memory=448 only=
program=$repository/build/release/server/aionbd
output=$repository/build/loop-table
while [[ $# -gt 0 ]]; do
  case $1 in
    --smoke) rounds=1 seconds=1 mib=16; shift ;;
    --rounds | --seconds | --mib | --memory | --program | --output | --only)
      [[ $# -ge 2 ]] || { echo "loop_table.sh: $1 takes a value" >&2; exit 2; }
      printf -v "${1#--}" '%s' "$2"
      shift 2 ;;
    -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "loop_table.sh: what is $1? --help tells" >&2; exit 2 ;;
  esac
done

mkdir -p "$output"
rm -f "$output/share/result.json"
# cache=none: the host's page cache must not stand in for the disk.
"$repository/tests/kernel/run" "$here/loop_table/in_the_guest.sh" --program "$program" --folder "$output" \
  --memory "$memory" --disk-options cache=none,aio=native \
  --settings "--rounds $rounds --seconds $seconds --mib $mib ${only:+--only $only}" || status=$?
if [[ -e $output/share/result.json ]]; then
  cp "$output/share/result.json" "$output/result.json"
  /usr/bin/python3 -B "$here/loop_table/report.py" "$output" | tee "$output/table.txt"
fi
exit "${status-0}"
