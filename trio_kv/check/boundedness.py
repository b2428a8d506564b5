"""Boundedness: what a node keeps stays in proportion to what it needs, however much was written before.

A log that is never dropped breaks no promise, and ends with a full disk.
"""

from collections.abc import Mapping

from trio_kv.check.violation import Violation
from trio_kv.raft.log import Log

SNAPSHOTS_MAX = 2
"""The newest one, and the one before it while it is being sent."""
SEGMENTS_MAX = 5
"""Segments beyond what the entries need: a partly used one at each end, the spare, two not dropped yet."""
CONFLICT_BYTES = 64 << 10
"""What entries took that were overwritten: segments that they reach into go with the next one that begins."""
WRITE_BYTES = 1024
"""What an entry, or a term, may take on a disk beyond its own bytes: at most a frame of its own."""


def require_bounded(node: int, sizes: Mapping[str, int], log: Log, term: int, segment_bytes: int) -> None:
    """Judge the directory of a node that has nothing to do.

    Args:
        node: which one.
        sizes: the names and sizes of its files, in bytes.
        log: what the node holds in memory; the disk needs no more than that.
        term: the node's: each may have taken a write.
        segment_bytes: size of its segments.

    Raises:
        Violation: there is more in it than there should be.

    """
    snapshots = [name for name in sizes if name.startswith("snapshot-")]
    if len(snapshots) > SNAPSHOTS_MAX:
        raise Violation(f"n{node} keeps {snapshots}")
    segments = {name: size for name, size in sizes.items() if name not in snapshots}
    entries = log.last_index - log.base_index
    # Twice: where a large entry does not fit any more, up to half of a small segment stays empty.
    needed_bytes = 2 * log.size_bytes(log.base_index + 1, log.last_index) + (entries + term) * WRITE_BYTES
    if sum(segments.values()) > needed_bytes + CONFLICT_BYTES + SEGMENTS_MAX * segment_bytes:
        raise Violation(f"n{node} keeps {segments} for {entries} entries, {needed_bytes} bytes at most")
