# The test of the tests of power cuts: with a library before the server that makes syncs do nothing, or durable writes plain
# ones, the judge must find losses: of each of the two, on each kind of disk, of a recording and under load.
# timeout: 400

source "$kernel_folder/guest/power.sh"

# finds_losses COMMAND...
finds_losses() {
  local status=0
  "$@" >verdict || status=$?
  tail -n 2 verdict
  expect "the judge's verdict" "$status" 3
  grep -q "is lost: it holds" verdict || fail "no loss was named"
}

server_preload=$forgetful
for kind in ext4 xfs raw raw4096; do
  for lie in flush fua; do
    export AIONBD_FORGETS=$lie
    step "$kind, without $lie"
    finds_losses recorded_cuts "$kind" 40 200 "$lie" --until-loss
    finds_losses live_cuts "$kind" 5 "$lie"
  done
done
