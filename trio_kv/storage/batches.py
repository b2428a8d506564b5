"""Writes as records of the log: what was decided one by one is merged, and cut where a segment is too small."""

from collections.abc import Iterator, Sequence

from trio_kv.raft.entry import Entry
from trio_kv.raft.ready import Write
from trio_kv.wire.frames import ENTRIES_HEADER_BYTES, Record, Reset, Truncate, encode_record


def merge(writes: Sequence[Write]) -> list[Record]:
    """Return the records of a batch, in order; entries that follow on one another become one record.

    A write's hard state comes first: a log is never reset to a place of a later term than its own.
    """
    records: list[Record] = []
    entries: list[Entry] | None = None
    for write in writes:
        if write.hard_state is not None:
            records.append(write.hard_state)
            entries = None
        if write.base is not None:
            records.append(Reset(*write.base))
            entries = None
        if write.truncate_from is not None:
            records.append(Truncate(write.truncate_from))
            entries = None
        if write.entries:
            if entries is None:
                entries = []
                records.append(entries)
            entries += write.entries
    return records


def encode(records: Sequence[Record]) -> list[bytes]:
    """Return the bytes of records, in pieces."""
    return [part for record in records for part in encode_record(record)]


def size_bytes(parts: Sequence[bytes]) -> int:
    """Return how many bytes the pieces have together."""
    return sum(map(len, parts))


def split(records: Sequence[Record], room_bytes: int) -> Iterator[list[Record]]:
    """Cut records into pieces that each fit into so many bytes, or hold one entry that does not."""
    piece: list[Record] = []
    free = room_bytes
    for record in records:
        for part, size in _cut(record, room_bytes):
            if piece and size > free:
                yield piece
                piece, free = [], room_bytes
            piece.append(part)
            free -= size
    yield piece


def _cut(record: Record, room: int) -> Iterator[tuple[Record, int]]:
    """Cut a record of entries into ones of at most `room` bytes, if it can be; yield each with its size."""
    if not isinstance(record, list):
        yield record, size_bytes(encode_record(record))
        return
    part: list[Entry] = []
    size = ENTRIES_HEADER_BYTES
    for entry in record:
        if part and size + len(entry.encoded) > room:
            yield part, size
            part, size = [], ENTRIES_HEADER_BYTES
        part.append(entry)
        size += len(entry.encoded)
    yield part, size
