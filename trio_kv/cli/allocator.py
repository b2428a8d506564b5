"""The C library's allocator, told to give back what was freed.

Python's small objects live in arenas of their own, which it gives back. Large blocks (dicts of a million keys, packed
logs, chunks of snapshots) are glibc's, which raises its limits with each large one that is freed and then keeps holes
of the same size: a fifth of what a large store needs.
"""

import ctypes
import sys

LARGE_BYTES = 1 << 20
"""From here on each block is the system's own, and goes back to it when it is freed."""
TOP_BYTES = 8 << 20
"""How much that is free at the end of the heap may stay there."""
ARENAS_MAX = 4
"""Heaps for threads: those of disks hold little, and each keeps what was freed in it."""

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def give_back_freed() -> bool:
    """Let the allocator do so, in this process; return whether it is one that takes such wishes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    wishes = ((_M_MMAP_THRESHOLD, LARGE_BYTES), (_M_TRIM_THRESHOLD, TOP_BYTES), (_M_ARENA_MAX, ARENAS_MAX))
    taken = [mallopt(which, size) == 1 for which, size in wishes]
    return all(taken)
