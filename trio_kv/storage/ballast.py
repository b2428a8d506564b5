"""A file whose space a node gives up when one of its writes finds none.

A segment is full of zeros before its first use, so that writing to it takes no space. How far that can be relied on
depends on the file system: it holds on ext4 and tmpfs; on xfs until somebody copies the file with a plain `cp`, which
shares its blocks; on btrfs, where the file is exempt from copying on write (`storage.files`), until somebody takes a
snapshot; and never on ZFS, APFS and bcachefs, where each write goes to a new place.

So each node keeps a file that is good for nothing but the space it takes. If the disk is full and a write finds no
space in a segment after all, the file is deleted, the write is made once more, and from then on the node takes no write
of a client: what the file leaves is for what is under way, and for votes. When there is space again, it is made anew.

It does not help when a snapshot of the whole file system shares its blocks as well, or when somebody else takes the
space that it leaves. Then the write waits.
"""

import contextlib

from trio_kv.storage.files import Files

BALLAST_NAME = "ballast"
BALLAST_BYTES = 1 << 20
"""A vote takes one sector, and with it up to 8 KiB where writes go to new places; xfs takes 128 KiB at a time. So this
is for more than 100 elections, and for some writes under way.
"""
_SMALL_SEGMENT_BYTES = 64 << 10


def ballast_bytes(segment_bytes: int) -> int:
    """Return how large the file is beside such segments: less, where they are smaller than a server's."""
    return BALLAST_BYTES if segment_bytes >= _SMALL_SEGMENT_BYTES else segment_bytes // 8


class Ballast:
    """The file of one node. `make` and `free` may be called from two threads; a making that is under way isn't freed.

    Args:
        files: the node's directory.
        size_bytes: how large a new file is.

    """

    def __init__(self, files: Files, size_bytes: int) -> None:
        """Look whether it is there."""
        self._files = files
        self._size_bytes = size_bytes
        self.is_there = BALLAST_NAME in files.names()

    def make(self) -> None:
        """Make the file if it isn't there. Raises OSError."""
        if not self.is_there:
            self._files.reserve(BALLAST_NAME, self._size_bytes)
            self.is_there = True

    def free(self) -> bool:
        """Delete the file; return whether there was one."""
        if not self.is_there:
            return False
        self.is_there = False
        # If even the removal finds no space, the write that follows fails again.
        with contextlib.suppress(OSError):
            self._files.delete(BALLAST_NAME)
        return True
