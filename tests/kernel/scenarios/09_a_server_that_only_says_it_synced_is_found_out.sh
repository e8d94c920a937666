# The test of the tests of power cuts: with a library before the server that makes syncs do nothing, or durable writes plain
# ones, the judge must find losses. Both lies are told of cuts of a recording, on ext4, on xfs and on a disk itself; under
# load, where the cut and the judge are the same for all, it is syncs on ext4.
# timeout: 300

source "$kernel_folder/guest/power.sh"

# finds_losses COMMAND...
finds_losses() {
  local status=0
  "$@" >verdict || status=$?
  tail -n 2 verdict
  expect "the judge's verdict" "$status" 3
  grep -q "is lost: it holds" verdict || fail "no loss was named"
}

record_and_lose() {
  step "$1, without $2"
  make_disk "$1"
  AIONBD_FORGETS=$2 server_preload=$forgetful record_changes "$1" 200 "$2"
  finds_losses power_cuts replay history "$1" 40 --until-loss
}

record_and_lose ext4 flush
record_and_lose ext4 fua
record_and_lose xfs flush
record_and_lose xfs fua
record_and_lose raw flush
record_and_lose raw fua

step "ext4 under load, without flush"
make_disk ext4
AIONBD_FORGETS=flush LD_PRELOAD=$forgetful finds_losses cut_under_load ext4 2 flush
