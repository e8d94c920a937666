#!/bin/bash
# From a bare checkout on Debian to a served disk image, in one command.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: quickstart.sh [FILE [SIZE]]

Installs the packages the build needs, builds aionbd, creates FILE (disk.img here, 1G) if it is not there,
and serves it on this machine until Ctrl-C. An existing FILE is served as it is, and SIZE is ignored.
TEXT
}

case ${1-} in
  -h | --help) usage; exit 0 ;;
  -*) usage >&2; exit 2 ;;
esac
if [[ $# -gt 2 ]]; then
  usage >&2
  exit 2
fi
file=${1:-disk.img}
size=${2:-1G}

source_tree=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/debian-packages.sh
source "$source_tree/packaging/debian-packages.sh"

step() { printf '==> %s\n' "$*"; }

step "Build packages"
install_missing_packages "${build_packages[@]}"

step "Build in $source_tree/build/release"
(
  cd -- "$source_tree"
  cmake --preset release
  cmake --build --preset release --target aionbd
)
program=$source_tree/build/release/server/aionbd

options=()
if [[ -e $file ]]; then
  step "Serve $file"
else
  step "Create $file ($size, allocated) and serve it"
  options=(--create "$size" --preallocate)
fi

cat <<TEXT

    Address:  nbd://localhost  (127.0.0.1 and [::1], port 10809; other machines cannot reach it)

    In another terminal, as a local disk (needs the package nbd-client):
      sudo modprobe nbd
      sudo nbd-client localhost /dev/nbd0
      sudo nbd-client -d /dev/nbd0                # detach again

    Look at it (package libnbd-bin):
      nbdinfo nbd://localhost

    As a disk of a virtual machine:
      qemu-system-x86_64 -m 1G -drive file=nbd://localhost,format=raw,if=virtio

    Ctrl-C stops the server.

TEXT

exec "$program" "${options[@]}" -- "$file"
