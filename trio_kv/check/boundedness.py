"""Boundedness: what a node keeps stays in proportion to what it needs, however much was written before.

A log that is never dropped breaks no promise, and ends with a full disk.
"""

from collections.abc import Hashable, Mapping

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

OVERDUE_S = 8.0
"""Longer than any lease, of a turn to take a snapshot and of a snapshot that is being sent, by the slowest clock of all
plans."""


class Overdue:
    """A snapshot that is due waits for other nodes only as long as those make progress.

    The log stays in memory, and on the disk, until the next snapshot is there. If that waited for a disk that hangs,
    that disk would fill all others.
    """

    def __init__(self) -> None:
        """Have seen no node yet."""
        self._since: dict[int, tuple[float, Hashable]] = {}

    def stepped(self, now: float, node: int, *, is_waiting: bool, waits_for: Hashable) -> None:
        """Look at a node whose disk works, after each of its steps.

        Args:
            now: the time of the world, in seconds.
            node: which one.
            is_waiting: whether it wants to take a snapshot and does not.
            waits_for: how far others are with what it may have to wait for.

        Raises:
            Violation: it has been waiting for somebody who does nothing.

        """
        if not is_waiting:
            self._since.pop(node, None)
            return
        since, seen = self._since.get(node, (now, waits_for))
        if seen != waits_for:
            since = now
        self._since[node] = since, waits_for
        if now - since > OVERDUE_S:
            raise Violation(
                f"n{node} has kept its log for {now - since:.1f} s for others who do nothing: {waits_for}"
            )


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
