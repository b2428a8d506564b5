"""One entry of the replicated log, and its one form in bytes.

The same bytes stand in the write-ahead log, travel between processes and run through the digest
that compares nodes, so they are made once, together with the entry, and shared by all nodes of a
process. To Raft the command is opaque: all it asks of one is `encode()`.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

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


class Entry(msgspec.Struct, eq=False, gc=False):
    """One log entry (paper §5.3). Nobody changes one.

    A msgspec struct and not an attrs class: it is made once a write, at a seventh of the cost.
    """

    index: int
    term: int
    time_us: int
    """Cluster time in microseconds: never decreases along a log."""
    command: Command | None
    """None for the no-op that opens a term (paper §8)."""
    encoded: bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.encoded)

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"


def make_entry(index: int, term: int, time_us: int, command: Command | None) -> Entry:
    """Make an entry and, once and for all, its bytes."""
    data = b"" if command is None else command.encode()
    return Entry(index, term, time_us, command, HEADER.pack(index, term, time_us, len(data)) + data)


class _Unread:
    """Stands for the command of an entry that need not be decoded now; whoever asks for its bytes has them already."""

    def encode(self) -> bytes:
        """Refuse."""
        raise AssertionError("this entry was not read yet")


UNREAD: Final = _Unread()


class SharingDecoder:
    """Decodes the commands of one log, of which other nodes of the process may have read most already."""

    def __init__(self, decode_command: Callable[[bytes], Command]) -> None:
        """Take what turns the bytes of a command into the command."""
        self._decode_command = decode_command

    def __call__(self, data: bytes) -> Command:
        """Decode a command."""
        return self._decode_command(data)

    @property
    def unpacked(self) -> list[Entry]:
        """Entries of another log, without a gap: whoever reads the same bytes shares them."""
        raise NotImplementedError

    def is_known(self, index: int, encoded: bytes) -> bool:
        """Return whether an entry need not be decoded: one of just these bytes was, or nobody will ask for it.

        Asked for each entry in turn.
        """
        raise NotImplementedError


def decode_entries(data: bytes, decode_command: Callable[[bytes], Command]) -> Iterator[Entry]:
    """Yield the entries whose bytes stand one after the other in `data`.

    The command of an entry that a `SharingDecoder` knows is `UNREAD`.

    Raises:
        ValueError: `data` ends inside an entry, or a command can't be decoded.

    """
    sharing = decode_command if isinstance(decode_command, SharingDecoder) else None
    is_known, others = (None, []) if sharing is None else (sharing.is_known, sharing.unpacked)
    first, last = (others[0].index, others[-1].index) if others else (0, -1)
    offset, size = 0, len(data)
    while offset < size:
        begin = offset + HEADER.size
        if begin > size:
            raise ValueError(f"entry header cut short at byte {offset}")
        index, term, time_us, length = HEADER.unpack_from(data, offset)
        end = begin + length
        if first <= index <= last and data.startswith(others[index - first].encoded, offset):
            yield others[index - first]
            offset = end
            continue
        if end > size:
            raise ValueError(f"entry {index} cut short at byte {offset}")
        encoded = data[offset:end]
        if is_known is not None and is_known(index, encoded):
            command: Command | None = UNREAD
        else:
            command = decode_command(data[begin:end]) if length else None
        yield Entry(index, term, time_us, command, encoded)
        offset = end
