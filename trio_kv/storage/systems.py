"""What operating systems and file systems do each in its own way: syncing, and taking space that stays one's own."""

import contextlib
import fcntl
import os
import struct
import sys
from pathlib import Path

from trio_kv.storage.place import open_directory

_FLAGS = struct.Struct("l")
_FS_IOC_GETFLAGS = 2 << 30 | _FLAGS.size << 16 | ord("f") << 8 | 1
_FS_IOC_SETFLAGS = 1 << 30 | _FLAGS.size << 16 | ord("f") << 8 | 2
"""As in `linux/fs.h`: the attributes of a file, those of `chattr`."""
_FS_NOCOW_FL = 0x00800000
"""`chattr +C`."""
_STAT_BLOCK_BYTES = 512


def exempt_from_copying(descriptor: int) -> None:
    """Let an empty file be written in place where others are copied on write: so its zeros hold space on btrfs.

    The file system no longer keeps checks of its own for it then. Whoever writes has theirs.
    """
    if sys.platform != "linux":
        return
    flags = bytearray(_FLAGS.size)
    # Most file systems don't know the attribute, or no attributes at all.
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
        _FLAGS.pack_into(flags, 0, _FLAGS.unpack(flags)[0] | _FS_NOCOW_FL)
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, bytes(flags))


def take_space(descriptor: int, size_bytes: int) -> None:
    """Let an empty file take space that is its own."""
    exempt_from_copying(descriptor)
    if sys.platform == "linux":
        # Blocks that were never written are not shared when somebody copies the file, as `cp` does on xfs.
        with contextlib.suppress(OSError):
            os.posix_fallocate(descriptor, 0, size_bytes)
    if os.fstat(descriptor).st_blocks * _STAT_BLOCK_BYTES < size_bytes:
        # Zeros would take none where the file system compresses.
        write_all(descriptor, 0, os.urandom(size_bytes))


def write_all(descriptor: int, offset: int, data: bytes) -> None:
    """Write all of `data`: one call may take only a part of it."""
    done = os.pwrite(descriptor, data, offset)
    while done < len(data):
        done += os.pwrite(descriptor, memoryview(data)[done:], offset + done)


def sync_descriptor(descriptor: int) -> None:
    """Make a file's data durable.

    On macOS fsync leaves the data in the drive's own cache (its manual page says so); F_FULLFSYNC does not.
    """
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = open_directory(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
