# shellcheck shell=bash
# The Debian packages that aionbd needs, named in this one place, and the function that installs what is missing.
# Read by packaging/quickstart.sh and tests/run.sh; it is not a program of its own.
#
# An entry may name alternatives, best first, separated by '|'; an alternative may ask for a version, as in
# 'libboost-dev>=1.81'. Debian 12 carries Boost 1.81 under a name of its own, Debian 13 only its one Boost.

# shellcheck disable=SC2034  # Both lists are read by the scripts that include this file.
build_packages=(
  g++ cmake ninja-build 'pkgconf|pkg-config'
  'libboost1.81-dev|libboost-dev>=1.81'
  libaio-dev libfmt-dev libcli11-dev libspdlog-dev libsystemd-dev libseccomp-dev libssl-dev
)
# shellcheck disable=SC2034
test_packages=(
  catch2 clang libclang-rt-dev clang-tidy clang-format
  libnbd-bin python3-libnbd nbdkit qemu-utils fio strace
  util-linux util-linux-extra mount e2fsprogs xfsprogs python3 procps iproute2
  # Whom the measurements compare with, and their charts. nbd-server's service starts, finds no exports, and ends.
  nbd-server python3-matplotlib
  # For the micro-benchmarks of the protocol core.
  libbenchmark-dev
  # Other people's TLS, and certificates that are wrong.
  gnutls-bin openssl
  # The guest with the kernel's client, tests/kernel.
  qemu-system-x86 busybox-static kmod xz-utils nbd-client stress-ng
  # Disks that fail and forget, for the same guest.
  dmsetup
)

# package_is_installed NAME[>=VERSION]
package_is_installed() {
  local name=${1%%>=*} wanted status version
  wanted=${1#"$name"}
  # shellcheck disable=SC2016  # The fields are for dpkg-query to fill in.
  status=$(dpkg-query -W -f='${db:Status-Abbrev}|${Version}' "$name" 2>/dev/null) || return 1
  version=${status#*|}
  [[ $status == ?i* ]] || return 1
  [[ -z $wanted ]] || dpkg --compare-versions "$version" ge "${wanted#>=}"
}

# package_is_available NAME[>=VERSION]: whether apt could install it.
package_is_available() {
  local name=${1%%>=*} wanted candidate
  wanted=${1#"$name"}
  candidate=$(apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: //p')
  [[ -n $candidate && $candidate != '(none)' ]] || return 1
  [[ -z $wanted ]] || dpkg --compare-versions "$candidate" ge "${wanted#>=}"
}

entry_is_installed() {
  local alternatives alternative
  IFS='|' read -ra alternatives <<<"$1"
  for alternative in "${alternatives[@]}"; do
    if package_is_installed "$alternative"; then return 0; fi
  done
  return 1
}

as_root() {
  if [[ $(id -u) -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "Installing packages needs root: run this as root, or install sudo." >&2
    return 1
  fi
}

# install_missing_packages ENTRY...: does nothing, and asks apt nothing, when every entry is there already.
install_missing_packages() {
  local entry alternatives alternative chosen missing=() names=()
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "No apt here: going on in the hope that the equivalents of these Debian packages are installed:" >&2
    echo "  $*" >&2
    return 0
  fi
  for entry in "$@"; do
    entry_is_installed "$entry" || missing+=("$entry")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0

  echo "Packages to install: ${missing[*]}"
  as_root apt-get update || echo "apt-get update failed; going on with the package lists that are there." >&2
  for entry in "${missing[@]}"; do
    IFS='|' read -ra alternatives <<<"$entry"
    chosen=
    for alternative in "${alternatives[@]}"; do
      if package_is_available "$alternative"; then
        chosen=${alternative%%>=*}
        break
      fi
    done
    if [[ -z $chosen ]]; then
      echo "apt knows no package for '$entry'. Debian 12 and 13 have it; is a mirror missing from apt's sources?" >&2
      return 1
    fi
    names+=("$chosen")
  done
  # --no-remove: nobody wants to lose another Boost, silently, for having tried this program.
  if ! as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install --yes --no-install-recommends --no-remove "${names[@]}"; then
    echo "apt could not install: ${names[*]}" >&2
    echo "If it refused to remove a package, that one stands in the way: remove it yourself and try again." >&2
    return 1
  fi
}
