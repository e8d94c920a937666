# The test of the tests of power cuts: with a library before the server that makes syncs do nothing, or durable writes plain
# ones, the judge must find losses; and each kind of disk must show it.
# timeout: 240

source "$kernel_folder/guest/power.sh"
found_out() {
  local kind=$1 forgets=$2 status=0
  step "$kind, without $forgets"
  make_disk "$kind"
  AIONBD_FORGETS=$forgets server_preload=$forgetful record_changes "$kind" 200 "$forgets"
  power_cuts replay history "$kind" 5 >verdict || status=$?
  tail -n 3 verdict
  expect "the judge's verdict" "$status" 3
  grep -q "is lost: it holds" verdict || fail "no loss was named"
}

for kind in ext4 xfs raw; do
  found_out "$kind" flush
  found_out "$kind" fua
done
