#!/usr/bin/env bash
# A file is written, and renamed over an older one, without a sync of the file; then *another* file in the directory is
# synced, and the power fails. What does the name hold?
#
# Expected by who reads that journals keep the order of what is done to names: the new content, or the old one. Seen
# (Linux 6.18, e2fsprogs 1.47.0, xfsprogs 6.1.0, btrfs-progs 6.2), the image being copied at that moment, without what is
# in memory only:
#
#   ext4    the new content: a rename over a file flushes the file first (auto_da_alloc)
#   xfs     an empty file: the sync of the other file carries the rename to the disk, and not the data
#   btrfs   the old content
#
# So a name is no promise: whoever builds on a file that somebody else renamed syncs it, and its directory, before.
# Root on Linux; it mounts images of its own, in a mount namespace of its own, and removes them. Exit status: 0 as stated
# or can't be tried here, 1 something has changed.
set -euo pipefail

if [ "$(id -u)" != 0 ] || ! command -v mkfs.ext4 mkfs.xfs mkfs.btrfs unshare python3 >/dev/null; then
  echo "can't be tried here: it takes root, mkfs.ext4, mkfs.xfs, mkfs.btrfs, python3 and unshare"
  exit 0
fi
if [ "${1:-}" != inside ]; then
  exec unshare --mount --propagation private "$0" inside
fi
work=$(mktemp -d)
trap 'umount "$work"/*.mnt 2>/dev/null || true; rm -rf "$work"' EXIT
echo "Linux $(uname -r)"

try() {
  local image=$work/$1.img mount=$work/$1.mnt after=$work/$1-after.mnt options=loop
  [ "$1" != xfs ] || options=loop,nouuid
  truncate -s 400M "$image"
  case $1 in ext4) mkfs.ext4 -q -F "$image";; *) "mkfs.$1" -q -f "$image" >/dev/null 2>&1;; esac
  mkdir "$mount" "$after"
  mount -o "$options" "$image" "$mount" 2>/dev/null || { echo "can't be tried here: $1 can't be mounted"; exit 0; }
  echo old >"$mount/name"
  touch "$mount/other"
  sync -f "$mount"
  python3 - "$mount" <<'PY'
import os, sys
os.chdir(sys.argv[1])
with open("name.tmp", "w") as file:
    file.write("new\n")
os.replace("name.tmp", "name")
with open("other", "a") as other:
    other.write("x")
    other.flush()
    os.fsync(other.fileno())
PY
  cp --sparse=always "$image" "$image.copy"
  umount "$mount"
  mount -o "$options" "$image.copy" "$after"
  if [ -s "$after/name" ]; then seen=$(cat "$after/name"); else seen=empty; fi
  umount "$after"
  printf '%-6s %s\n' "$1" "$seen"
}

changed=0
expect() { [ "$seen" = "$1" ] || { echo "  CHANGED: it was '$1'"; changed=1; }; }

try ext4;  expect new
try xfs;   expect empty
try btrfs; expect old
exit $changed
