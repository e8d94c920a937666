#!/bin/bash
# Makes a tree with Debian 13's tools of libnbd and QEMU, whose clients speak extended headers, for newer_clients_test.py.
#
#   debian13.sh TREE
#
# The packages come from the mirror that apt is set up with here. They are unpacked and nothing more: no system that
# could be booted, nothing of it configured. A tree that is complete is left alone. When it cannot be made, status 1, and
# the reason stands in TREE.missing, which the tests repeat when they are skipped.
set -euo pipefail

tree=$(realpath --canonicalize-missing -- "${1:?usage: debian13.sh TREE}")
suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
packages=(libnbd-bin python3-libnbd qemu-utils bash)
complete=$tree/.complete
mkdir -p "$(dirname -- "$tree")"
rm -f -- "$tree.missing"
work=$(mktemp -d "$tree.XXXXXXXX")
trap 'rm -rf -- "$work"' EXIT

give_up() {
  echo "no Debian 13 tree: $*" | tee "$tree.missing" >&2
  exit 1
}

if [[ -e $complete && $(<"$complete") == "${packages[*]}" ]]; then exit 0; fi
type apt-get dpkg-deb >/dev/null 2>&1 || give_up "no apt here"
[[ -r $keyring ]] || give_up "no $keyring (Debian: debian-archive-keyring)"

# Where apt gets Debian itself from. What it has not fetched yet, it does not know by name.
find_mirror() {
  # shellcheck disable=SC2016  # The fields are for apt to fill in.
  apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 2>/dev/null | sed -n 's/^Debian|Debian|//p' | head -n 1
}
mirror=$(find_mirror)
if [[ -z $mirror && $(id -u) -eq 0 ]]; then
  apt-get update -qq >/dev/null 2>&1 || true
  mirror=$(find_mirror)
fi
[[ -n $mirror ]] || give_up "apt knows no mirror of Debian: is there none, or was there no apt-get update?"

# An apt of its own, for which nothing is installed yet: it finds out what all is needed.
mkdir -p "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial"
: >"$work/apt/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/apt/sources.list"
apt_options=(
  -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null
  -o Dir::Etc::PreferencesParts=/dev/null -o "Dir::State=$work/apt/state" -o "Dir::State::Status=$work/apt/status"
  -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=2
  -o Acquire::http::Timeout=30 -o APT::Install-Recommends=false -o Debug::NoLocking=1
)
apt-get "${apt_options[@]}" -o APT::Update::Error-Mode=any update -qq >"$work/log" 2>&1 ||
  give_up "$suite cannot be reached: $(tail -n 1 "$work/log")"
apt-get "${apt_options[@]}" install -qq --yes --download-only "${packages[@]}" >"$work/log" 2>&1 ||
  give_up "the packages cannot be had: $(tail -n 1 "$work/log")"

# Debian 13 has everything below /usr; the old places are links.
mkdir -p "$work/tree/usr"/{bin,sbin,lib,lib64} "$work/tree"/{mnt,srv,proc,dev,tmp}
for name in bin sbin lib lib64; do ln -s "usr/$name" "$work/tree/$name"; done
for package in "$work"/apt/cache/archives/*.deb; do dpkg-deb --extract "$package" "$work/tree"; done
rm -rf -- "$work/tree/usr/share/doc" "$work/tree/usr/share/man" "$work/tree/usr/share/locale"
echo "${packages[*]}" >"$work/tree/.complete"
rm -rf -- "$tree"
mv -- "$work/tree" "$tree"
