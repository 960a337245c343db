#!/usr/bin/env bash
# Prove the install steps on a bare Debian: tools/bare.sh [TARGET...], as root; without targets: demo and test-fast.
#
# Makes a Debian of the host's own release with debootstrap, in build/bare, that holds python3, python3-venv, make, git
# and what these depend on. Clones what is committed here into it, and runs the targets of the Makefile in it: a system
# package that the Makefile forgets shows. Debian's packages and Python's come from where the host has them from: the
# configuration of apt and pip is copied, and variables named PIP_... are passed on.
#
#   BARE_BIND="FOLDER ..."   further folders of the host to show inside, such as packages or certificates that pip's
#                            configuration names
#   BARE_KEEP=1              go on in the Debian of the last run instead of making a new one
set -euo pipefail
cd "$(dirname "$0")/.."
TARGETS=("${@:-demo}")
[ $# -gt 0 ] || TARGETS=(demo test-fast)
BARE=$PWD/build/bare
INSIDE=/root/napari-milcnn

if [ "$(id -u)" != 0 ]; then
  echo "make bare needs root, to make a Debian and change into it: run it with sudo, or in a container" >&2
  exit 1
fi
# In a mount namespace of its own whatever is mounted here is gone when the script ends, however it ends.
if [ -z "${BARE_UNSHARED:-}" ]; then
  exec env BARE_UNSHARED=1 unshare --mount --propagation private "$0" "$@"
fi
command -v debootstrap >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap)

debian_sources() {
  # One line for each part of Debian that the host's apt reads, and nothing of other vendors.
  apt-get indextargets --format "deb \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" "Created-By: Packages" "Origin: Debian" | sort -u
}

make_debian() {
  local release mirror
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mirror=$(debian_sources | awk -v release="$release" '$3 == release { print $2; exit }')
  if [ -z "$mirror" ]; then
    echo "apt knows no Debian of the release '$release': run apt-get update, on a Debian with sources of its own" >&2
    exit 1
  fi
  rm -rf --one-file-system "$BARE"
  mkdir -p "$BARE"
  debootstrap --variant=minbase --include=python3,python3-venv,make,git "$release" "$BARE" "$mirror"
  debian_sources > "$BARE/etc/apt/sources.list"
}

copy_configuration() {
  cp --dereference /etc/resolv.conf "$BARE/etc/resolv.conf"
  mkdir -p "$BARE/etc/xdg" "$BARE/root/.config"
  copy /etc/pip.conf "$BARE/etc"
  copy /etc/xdg/pip "$BARE/etc/xdg"
  copy "$HOME/.pip" "$BARE/root"
  copy "$HOME/.config/pip" "$BARE/root/.config"
}

copy() {
  if [ -e "$1" ]; then cp --recursive --dereference "$1" "$2"; fi
}

show_folders() {
  local folder
  mount -t proc proc "$BARE/proc"
  mount --rbind /dev "$BARE/dev"
  for folder in ${BARE_BIND:-}; do
    mkdir -p "$BARE$folder"
    mount --bind "$folder" "$BARE$folder"
  done
}

inside() {
  env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    "${PIP_VARIABLES[@]}" chroot "$BARE" sh -c "cd $INSIDE && $1"
}

mapfile -t PIP_VARIABLES < <(env | grep '^PIP_')
[ -n "${BARE_KEEP:-}" ] && [ -d "$BARE/usr/bin" ] || make_debian
copy_configuration
rm -rf "$BARE$INSIDE"
git clone --quiet --no-hardlinks . "$BARE$INSIDE"
show_folders
for target in "${TARGETS[@]}"; do
  echo "bare: make $target"
  inside "make $target"
done
echo "bare: ${TARGETS[*]} done, on $(. "$BARE/etc/os-release" && echo "$PRETTY_NAME"), $(inside "python3 --version")"
