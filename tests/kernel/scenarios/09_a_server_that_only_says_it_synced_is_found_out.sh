# The test of the tests of power cuts: with a library before the server that makes syncs do nothing, or durable writes plain
# ones, the judge must find losses on each kind of disk: of one of the lies in a recording, of the other under load.
#
# With --settings, whatever they are, both in both.
# timeout: 900

source "$kernel_folder/guest/power.sh"
server_preload=$forgetful

# finds_losses COMMAND...
finds_losses() {
  local status=0
  "$@" >verdict || status=$?
  tail -n 2 verdict
  expect "the judge's verdict" "$status" 3
  grep -q "is lost: it holds" verdict || fail "no loss was named"
}

# lie LIE RECORDED-KIND... -- LIVE-KIND...
lie() {
  local how=recorded
  export AIONBD_FORGETS=$1
  for kind in "${@:2}"; do
    if [[ $kind == -- ]]; then how=live && continue; fi
    step "$kind, $how, without $AIONBD_FORGETS"
    case $how in
      recorded) finds_losses recorded_cuts "$kind" 40 200 "$AIONBD_FORGETS" --until-loss ;;
      live) finds_losses live_cuts "$kind" 20 "$AIONBD_FORGETS" ;;
    esac
  done
}

lie flush ext4 raw4096 -- xfs raw
lie fua xfs raw -- ext4 raw4096
if [[ -n ${settings:-} ]]; then
  lie flush xfs raw -- ext4 raw4096
  lie fua ext4 raw4096 -- xfs raw
fi
