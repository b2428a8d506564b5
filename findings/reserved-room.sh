#!/usr/bin/env bash
# What does a file full of synced zeros reserve, when the disk fills up before the zeros are overwritten in place?
#
# Expected by many logs that preallocate: all of its room. Seen (Linux 6.18, coreutils 9.1, e2fsprogs 1.47.0, xfsprogs
# 6.1.0, btrfs-progs 6.2):
#
#   file system              overwritten on the full disk
#   ext4                     fits
#   xfs                      fits
#   xfs, after a plain cp    no space: cp shares the blocks, and a write has to copy them first
#   btrfs                    no space: each write goes to a new place
#   btrfs, chattr +C         fits
#   btrfs, chattr +C, cp     fits: a plain file shares no blocks with one that is not copied on write, so cp copies all
#
# Root on Linux; it mounts images of its own, in a mount namespace of its own, and removes them. Exit status: 0 as stated
# or can't be tried here, 1 something has changed.
set -euo pipefail

if [ "$(id -u)" != 0 ] || ! command -v mkfs.ext4 mkfs.xfs mkfs.btrfs unshare chattr >/dev/null; then
  echo "can't be tried here: it takes root, mkfs.ext4, mkfs.xfs, mkfs.btrfs, chattr and unshare"
  exit 0
fi
if [ "${1:-}" != inside ]; then
  exec unshare --mount --propagation private "$0" inside
fi
work=$(mktemp -d)
trap 'umount "$work"/*.mnt 2>/dev/null || true; rm -rf "$work"' EXIT
echo "Linux $(uname -r), $(cp --version | head -n 1)"
dd if=/dev/zero bs=1M count=4 status=none | tr '\0' x >"$work/letters"

# Arguments: a name, the file system, what is done to the file before its first byte, and to the zeros before the fill.
try() {
  local image=$work/$1.img mount=$work/$1.mnt file
  truncate -s 400M "$image"
  case $2 in ext4) mkfs.ext4 -q -F "$image";; *) "mkfs.$2" -q -f "$image" >/dev/null 2>&1;; esac
  mkdir "$mount"
  mount -o loop "$image" "$mount" 2>/dev/null || { echo "can't be tried here: $2 can't be mounted"; exit 0; }
  file=$mount/log
  touch "$file"
  eval "$3"
  dd if=/dev/zero of="$file" bs=1M count=4 conv=notrunc,fsync status=none
  eval "$4"
  dd if=/dev/zero of="$mount/filler" bs=1M status=none 2>/dev/null || true
  dd if=/dev/zero of="$mount/filler" bs=4k oflag=append conv=notrunc,fsync status=none 2>/dev/null || true
  sync -f "$mount"
  dd if=/dev/zero of="$mount/filler" bs=4k oflag=append conv=notrunc,fsync status=none 2>/dev/null || true
  if dd if="$work/letters" of="$file" bs=64k conv=notrunc,fsync status=none 2>/dev/null; then seen=fits; else seen="no space"; fi
  umount "$mount"
  printf '%-24s %s\n' "$1" "$seen"
}

changed=0
expect() { [ "$seen" = "$1" ] || { echo "  CHANGED: it was '$1'"; changed=1; }; }

try ext4 ext4 : :;                                                              expect "fits"
try xfs xfs : :;                                                                expect "fits"
try xfs-cp xfs : 'cp "$file" "$mount/copy"';                                    expect "no space"
try btrfs btrfs : :;                                                            expect "no space"
try btrfs-nocow btrfs 'chattr +C "$file"' :;                                    expect "fits"
try btrfs-nocow-cp btrfs 'chattr +C "$file"' 'cp "$file" "$mount/copy"';        expect "fits"
exit $changed
