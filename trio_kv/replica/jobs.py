"""What a replica asks of its disk besides the writes of its log. Jobs are carried out in order, behind the writes."""

import attrs


@attrs.frozen
class BeginSnapshot:
    """Begin to write a snapshot up to (index, term) into a temporary file, in place of any that was begun."""

    index: int
    term: int


@attrs.frozen
class AddChunk:
    """Add a chunk to it. Its completion is `Replica.chunk_added`."""

    number: int
    data: bytes


@attrs.frozen
class FinishSnapshot:
    """Make it durable, prove it readable, and put it in the place of the one before. Completion: `snapshot_stored`."""


@attrs.frozen
class CompactLog:
    """Drop the segments of the log that hold nothing beyond this index."""

    index: int


@attrs.frozen
class ReadChunk:
    """Read a chunk of a snapshot, or of the newest one. Completion: `Replica.chunk_read`."""

    snapshot: tuple[int, int] | None
    number: int


@attrs.frozen
class ReleaseSnapshot:
    """Nobody reads this snapshot any more: it need not be kept beside newer ones."""

    index: int
    term: int


Job = BeginSnapshot | AddChunk | FinishSnapshot | CompactLog | ReadChunk | ReleaseSnapshot
