#!/bin/bash
# A file of zeros that was written and synced does not hold its room: writing over it on a full disk ends in ENOSPC.
# - btrfs: always, unless the file had `chattr +C` before its first byte.
# - xfs: as soon as somebody made a plain `cp` of it (coreutils 9 shares the blocks). And a file that was copied so gives
#   no room back when it is deleted - unless its blocks were allocated and never written: those are not shared.
#
# Takes root, loop devices, mkfs.btrfs and mkfs.xfs; elsewhere it says so and exits with 0. Exit 1: it is otherwise now.
set -eu
work=$(mktemp -d)
trap 'umount "$work/disk" 2>/dev/null || true; rm -rf "$work"' EXIT
[ "$(id -u)" = 0 ] || { echo "skipped: mounting takes root"; exit 0; }
for tool in mkfs.btrfs mkfs.xfs python3; do
  command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 0; }
done
echo "$(uname -sr), $(cp --version | head -1), $(mkfs.xfs -V), $(mkfs.btrfs --version)"
mkdir "$work/disk"

cat >"$work/look.py" <<'PYTHON'
import errno, fcntl, os, struct, subprocess, sys

os.chdir(sys.argv[1])
SIZE = 4 << 20


def make(name, *, is_in_place=False, is_written=True):
    file = os.open(name, os.O_RDWR | os.O_CREAT)
    if is_in_place:  # chattr +C
        fcntl.ioctl(file, 0x40086602, struct.pack("l", 0x00800000))
    if is_written:
        os.pwrite(file, bytes(SIZE), 0)
    else:
        os.posix_fallocate(file, 0, SIZE)
    os.fsync(file)
    return file


def fill():
    with open("filler", "ab", buffering=0) as filler:
        for size in (1 << 20, 1 << 16, 4096, 512):
            try:
                while filler.write(os.urandom(size)):
                    os.fsync(filler.fileno())
            except OSError:
                pass


def write_over(file, at):
    try:
        os.pwrite(file, b"x" * 4096, at)
        os.fsync(file)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "written"


def copy(name):
    subprocess.run(["cp", name, name + ".copy"], check=True)


def write_over_after_deleting(file, at, name):
    os.unlink(name)
    os.sync()
    return write_over(file, at)


if sys.argv[2] == "btrfs":
    plain, in_place = make("plain"), make("in-place", is_in_place=True)
    fill()
    print("zeros", write_over(plain, 0))
    print("zeros, chattr +C", write_over(in_place, 0))
else:
    plain, copied = make("plain"), make("copied")
    os.close(make("written"))
    os.close(make("allocated", is_written=False))
    for name in ("copied", "written", "allocated"):
        copy(name)
    fill()
    print("zeros", write_over(plain, 0))
    print("zeros, copied", write_over(copied, 0))
    print("zeros, copied, when another copied file was deleted", write_over_after_deleting(copied, 0, "written"))
    print("the same, one never written to", write_over_after_deleting(copied, 0, "allocated"))
PYTHON

look() {
  truncate -s 320M "$work/image"
  "mkfs.$1" -q -f "$work/image" >/dev/null 2>&1
  mount -o loop "$work/image" "$work/disk" 2>/dev/null || { echo "skipped: no $1 can be mounted"; exit 0; }
  python3 "$work/look.py" "$work/disk" "$1"
  umount "$work/disk"
  rm "$work/image"
}

expected="btrfs:
zeros ENOSPC
zeros, chattr +C written
xfs:
zeros written
zeros, copied ENOSPC
zeros, copied, when another copied file was deleted ENOSPC
the same, one never written to written"
seen="btrfs:
$(look btrfs)
xfs:
$(look xfs)"
echo "$seen"
case $seen in *skipped:*) exit 0;; esac
[ "$seen" = "$expected" ] || { echo "It is otherwise now. Expected:"; echo "$expected"; exit 1; }
