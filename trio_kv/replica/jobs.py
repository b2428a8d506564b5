"""The words between a replica and its disk: besides writes of its log, what it asks for, and what the disk tells.

Jobs are carried out in order, behind the writes that were given before them; only a compaction waits for these.
"""

import attrs

from trio_kv.raft.entry import LogPosition
from trio_kv.raft.ready import ChunkWasRead, Ticket


@attrs.frozen
class BeginSnapshot:
    """Begin to write a snapshot up to (index, term) into a temporary file, in place of any that was begun."""

    index: int
    term: int


@attrs.frozen
class AddChunk:
    """Add a chunk to it. Told by `ChunkAdded`."""

    number: int
    data: bytes


@attrs.frozen
class FinishSnapshot:
    """Make it durable, prove it readable, and put it in the place of the one before. Told by `SnapshotStored`."""


@attrs.frozen
class ReadChunk:
    """Read a chunk of a snapshot, or of the newest one. Told by `ChunkWasRead`."""

    snapshot: LogPosition | None
    number: int


@attrs.frozen
class ReleaseSnapshot:
    """Nobody reads this snapshot any more: it need not be kept beside newer ones."""

    index: int
    term: int


@attrs.frozen
class CompactLog:
    """Drop the segments of the log that hold nothing beyond this index."""

    index: int


SnapshotJob = BeginSnapshot | AddChunk | FinishSnapshot | ReadChunk | ReleaseSnapshot
Job = SnapshotJob | CompactLog


@attrs.frozen
class Stored:
    """All writes up to this ticket are durable."""

    ticket: Ticket


@attrs.frozen
class DiskFailed:
    """The disk has ended, and nothing is known of what it holds since; nothing is told after this.

    An OSError is a failed disk, a DamagedError one that does not give back what was written, anything else a bug.
    """

    error: Exception


@attrs.frozen
class LogSpaceChanged:
    """How much zero-filled log space a full disk has left; None when it is not full."""

    free_log_bytes: int | None


@attrs.frozen
class ChunkAdded:
    """The disk took a chunk of the snapshot that is being written: the next one may come."""

    index: int
    term: int
    number: int


@attrs.frozen
class SnapshotMoved:
    """The disk gets on with a snapshot whose last chunk it has."""

    index: int
    term: int


@attrs.frozen
class SnapshotStored:
    """A snapshot is durable, and was proved readable."""

    index: int
    term: int
    size_bytes: int


@attrs.frozen
class SnapshotFailed:
    """The disk is full: what was written of a snapshot is gone, and what still comes of it is ignored."""

    index: int
    term: int
    reason: str


Completion = (
    Stored
    | DiskFailed
    | LogSpaceChanged
    | ChunkAdded
    | SnapshotMoved
    | SnapshotStored
    | SnapshotFailed
    | ChunkWasRead
)
