"""One entry of the replicated log, and its one form in bytes.

The same bytes stand in the write-ahead log, travel between processes and run through the digest
that compares nodes, so they are made once, together with the entry, and shared by all nodes of a
process. To Raft the command is opaque: all it asks of one is `encode()`.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import msgspec


class Command(Protocol):
    """What a state machine puts into the log."""

    def encode(self) -> bytes:
        """Return the command's bytes; they never hold a run of 512 zero bytes (see `storage.wal`)."""
        ...  # pragma: no cover


class LogPosition(NamedTuple):
    """A place in a log: logs that have the same term at an index are equal up to there (paper §5.3)."""

    index: int  # type: ignore[assignment]  # it hides a method of tuples that a place has no use for
    term: int

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"


LOG_START = LogPosition(0, 0)
"""Before the first entry."""

HEADER = struct.Struct("<QQQI")
"""index, term, time_us, length of the command in bytes."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One log entry (paper §5.3).

    A msgspec struct and not an attrs class: it is made once a write, at a seventh of the cost.
    """

    index: int
    term: int
    time_us: int
    """Cluster time in microseconds: never decreases along a log."""
    command: Command | None
    """None for the no-op that opens a term (paper §8)."""
    encoded: bytes

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"


def make_entry(index: int, term: int, time_us: int, command: Command | None) -> Entry:
    """Make an entry and, once and for all, its bytes."""
    data = b"" if command is None else command.encode()
    return Entry(index, term, time_us, command, HEADER.pack(index, term, time_us, len(data)) + data)


class SharingDecoder:
    """Decodes commands for all nodes of one process, so that they share the entries that one of them has read.

    Their logs hold the same entries. An entry whose bytes are equal to those of a known one is that one: it takes
    neither time to decode nor memory.
    """

    def __init__(self, decode_command: Callable[[bytes], Command]) -> None:
        """Know no entry yet."""
        self.known: dict[int, Entry] = {}
        """The entry last read at each index."""
        self._decode_command = decode_command

    def __call__(self, data: bytes) -> Command:
        """Decode a command."""
        return self._decode_command(data)


def decode_entries(data: bytes, decode_command: Callable[[bytes], Command]) -> Iterator[Entry]:
    """Yield the entries whose bytes stand one after the other in `data`.

    Raises:
        ValueError: `data` ends inside an entry, or a command can't be decoded.

    """
    known = decode_command.known if isinstance(decode_command, SharingDecoder) else {}
    is_sharing = isinstance(decode_command, SharingDecoder)
    offset, size = 0, len(data)
    while offset < size:
        end = offset + HEADER.size
        if end > size:
            raise ValueError(f"entry header cut short at byte {offset}")
        index, term, time_us, length = HEADER.unpack_from(data, offset)
        shared = known.get(index)
        if shared is not None and data.startswith(shared.encoded, offset):
            yield shared
            offset = end + length
            continue
        if end + length > size:
            raise ValueError(f"entry {index} cut short at byte {offset}")
        command = decode_command(data[end : end + length]) if length else None
        entry = Entry(index, term, time_us, command, data[offset : end + length])
        if is_sharing:
            known[index] = entry
        yield entry
        offset = end + length
