"""The write-ahead log of one node: all that must outlive a crash, in the order in which it was decided.

Term, vote, truncations and entries are records of the one log, so that they can't be reordered: an entry is
never durable before the term it belongs to (scenario D7).

- **One batch is one frame, one write, one sync.** A frame is written only when all before it is durable;
  recovery rests on that (`storage.recovery`). A batch that is larger than a segment is the exception: it is
  cut between entries into several frames, each synced before the next. A crash then leaves a part of it, as
  if less had been given.
- **Segments** are full of zeros and durable before they are used: a sync then only carries the data, and not
  the file's size and blocks, which takes twice as long. The next one ("spare") is made ahead by `prepare`, so
  that writing does not wait for it. A batch that doesn't fit in what is left goes into the next segment.
- Before that the old one is **sealed**: a frame says that the log goes on, so that a lost last file is
  noticed. Each segment's first frame **restates** the hard state and the last entry before it: a segment can
  be understood without those before it, which a log that drops what a snapshot covers needs, and a hole is
  noticed.
- An OSError leaves the log unusable for good (scenario D11): what is on disk is unknown until it is read
  again.

The log holds no entries in memory, only its shape, against which each batch is checked before it is written.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import attrs

from trio_kv.kv.commands import decode_command as decode_kv_command
from trio_kv.raft.entry import Command, Entry
from trio_kv.raft.ready import HardState, Write
from trio_kv.storage.files import Files
from trio_kv.storage.recovery import Recovered, Recovery, Segment, segment_name
from trio_kv.storage.shape import LogShape, ShapeError
from trio_kv.wire.frames import (
    ENTRIES_HEADER_BYTES,
    RESTATEMENT_BYTES,
    SECTOR_BYTES,
    Identity,
    Kind,
    Record,
    SegmentHeader,
    Truncate,
    encode_frame,
    encode_record,
    frame_bytes,
)

SEGMENT_BYTES = 8 << 20
"""Default size of a segment."""
SEGMENT_BYTES_MIN = 4096
SEGMENT_BYTES_MAX = 1 << 30
_OVERHEAD_BYTES = SECTOR_BYTES + frame_bytes(0)
"""What a segment holds besides frames with records: its header and its seal."""


def check_segment_bytes(segment_bytes: int) -> int:
    """Return the size if segments can have it.

    Raises:
        ValueError: they can't.

    """
    if not SEGMENT_BYTES_MIN <= segment_bytes <= SEGMENT_BYTES_MAX or segment_bytes % SECTOR_BYTES:
        raise ValueError(
            f"a segment has {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes, a multiple of {SECTOR_BYTES},"
            f" not {segment_bytes}"
        )
    return segment_bytes


@attrs.frozen
class WalStatistics:
    """What a log did since it was opened."""

    frames: int
    """Each is one sync."""
    bytes_written: int
    segment: int
    offset: int
    """Where the next frame goes, in bytes of the segment."""


class Wal:
    """A log that can be written to. Made by `create` or `open`.

    The driver's duties: `append` one batch after the other, from one thread; acknowledge a batch when
    `append` has returned; after an OSError acknowledge nothing more and `close`; when `wants_spare`, call
    `prepare` soon, from whatever thread. A log without its spare works, but makes it while a batch waits.
    """

    def __init__(
        self, files: Files, shape: LogShape, current: Segment, spare: SegmentHeader | None, segment_bytes: int
    ) -> None:
        """Go on at the given place. Use `create` or `open`."""
        self._files = files
        self._shape = shape
        self._segment_bytes = check_segment_bytes(segment_bytes)
        self._header = current.header
        self._name = segment_name(current.header.number)
        self._seed = current.seed
        self._offset = current.offset
        self._spare = spare
        self._spare_lock = threading.Lock()
        self._is_usable = True
        self._frames = 0
        self._bytes_written = 0

    @classmethod
    def create(cls, files: Files, identity: Identity, *, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Make an empty log, durable on return.

        Raises:
            OSError: the disk refused.

        """
        header = _create_segment(files, SegmentHeader(identity, 1, check_segment_bytes(segment_bytes)))
        return cls(files, LogShape(), Segment(header, header.seed, SECTOR_BYTES), None, segment_bytes)

    @classmethod
    def open(
        cls,
        files: Files,
        identity: Identity,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        decode_command: Callable[[bytes], Command] = decode_kv_command,
    ) -> tuple[Self, Recovered]:
        """Read a log back; what is returned is durable.

        Args:
            files: its directory.
            identity: whose log it must be.
            segment_bytes: size of segments made from now on.
            decode_command: what turns the bytes of a command into the command.

        Raises:
            DamagedError: the log can't be believed; no file was changed.
            OSError: the disk refused.

        """
        recovery = Recovery(files, identity, decode_command)
        recovered = recovery.run()
        assert recovery.current is not None
        return cls(files, recovery.shape, recovery.current, recovery.spare, segment_bytes), recovered

    @property
    def hard_state(self) -> HardState:
        """The durable term and vote."""
        return self._shape.hard_state

    @property
    def last_index(self) -> int:
        """Index of the last durable entry."""
        return self._shape.last_index

    @property
    def segment(self) -> int:
        """Number of the segment that is written to."""
        return self._header.number

    @property
    def wants_spare(self) -> bool:
        """Whether the segment is half full and the next one isn't made yet."""
        return self._spare is None and self._offset * 2 >= self._header.size_bytes

    def statistics(self) -> WalStatistics:
        """Return what was done so far."""
        return WalStatistics(self._frames, self._bytes_written, self.segment, self._offset)

    def append(self, writes: Sequence[Write]) -> None:
        """Make a batch of writes durable, in their order.

        Raises:
            OSError: the disk refused; the log must not be used any more.
            AssertionError: a write does not follow on the log, or the log failed before.

        """
        assert self._is_usable, "the log failed before: what is on disk is unknown until it is read again"
        assert writes, "a batch holds at least one write"
        self._is_usable = False
        records = _merge(writes)
        parts = _encode(records)
        if _size(parts) <= self._room(self._segment_bytes):
            self._write(records, parts)
        else:
            for piece in self._split(records):
                self._write(piece, _encode(piece))
        self._is_usable = True

    def prepare(self) -> None:
        """Make the next segment, if it isn't there. May run in another thread, beside `append`.

        Raises:
            OSError: the disk refused. If only because it is full, this may be tried again.

        """
        with self._spare_lock:
            if self._spare is None:
                header = self._header
                self._spare = _create_segment(
                    self._files, SegmentHeader(header.identity, header.number + 1, self._segment_bytes)
                )

    def close(self) -> None:
        """Let go of the files. Nothing is written."""
        self._is_usable = False
        self._files.close()

    def _write(self, records: Sequence[Record], parts: list[bytes]) -> None:
        """Make one frame durable."""
        if (
            self._offset + frame_bytes(RESTATEMENT_BYTES + _size(parts)) + frame_bytes(0)
            > self._header.size_bytes
        ):
            self._roll(_size(parts))
        if self._offset == SECTOR_BYTES:
            parts = [*_encode((self._shape.hard_state, self._shape.last)), *parts]
        for record in records:
            try:
                self._shape.put(record)
            except ShapeError as error:
                raise AssertionError(f"a write does not follow on the log: {error}") from error
        self._put_frame(Kind.RECORDS, parts)

    def _put_frame(self, kind: Kind, parts: Sequence[bytes]) -> None:
        data = encode_frame(kind, parts, self._seed, self._offset)
        self._files.write(self._name, self._offset, data)
        self._files.sync(self._name)
        self._offset += len(data)
        self._frames += 1
        self._bytes_written += len(data)

    def _roll(self, payload_bytes: int) -> None:
        """Go on in the next segment, which has room for a first frame with such a payload."""
        self.prepare()
        with self._spare_lock:
            spare = self._spare
            assert spare is not None
            if payload_bytes > self._room(spare.size_bytes):
                # An entry larger than a segment: the spare, which holds nothing yet, gives way to a larger
                # one.
                size_bytes = max(
                    self._segment_bytes, _OVERHEAD_BYTES + frame_bytes(RESTATEMENT_BYTES + payload_bytes)
                )
                spare = _create_segment(self._files, attrs.evolve(spare, size_bytes=size_bytes))
            # The seal comes last: it says that the next segment is there.
            self._put_frame(Kind.SEAL, ())
            self._header, self._spare = spare, None
            self._name = segment_name(spare.number)
            self._seed = spare.seed
            self._offset = SECTOR_BYTES

    @staticmethod
    def _room(segment_bytes: int) -> int:
        """Return how many bytes of records surely fit into an empty segment's first frame."""
        # A frame has at least one byte of fill, and its header takes less than a sector.
        return segment_bytes - _OVERHEAD_BYTES - frame_bytes(0) - RESTATEMENT_BYTES

    def _split(self, records: Sequence[Record]) -> Iterator[list[Record]]:
        """Cut records into pieces that each fit into an empty segment, or hold one entry that does not."""
        room = self._room(self._segment_bytes)
        piece: list[Record] = []
        free = room
        for record in records:
            for part, size in _cut(record, room):
                if piece and size > free:
                    yield piece
                    piece, free = [], room
                piece.append(part)
                free -= size
        yield piece


def _create_segment(files: Files, header: SegmentHeader) -> SegmentHeader:
    files.create(segment_name(header.number), header.size_bytes, header.encode())
    return header


def _merge(writes: Sequence[Write]) -> list[Record]:
    """Return the records of a batch, in order; entries that follow on one another become one record."""
    records: list[Record] = []
    entries: list[Entry] | None = None
    for write in writes:
        if write.hard_state is not None:
            records.append(write.hard_state)
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


def _encode(records: Sequence[Record]) -> list[bytes]:
    return [part for record in records for part in encode_record(record)]


def _size(parts: Sequence[bytes]) -> int:
    return sum(map(len, parts))


def _cut(record: Record, room: int) -> Iterator[tuple[Record, int]]:
    """Cut a record of entries into ones of at most `room` bytes, if it can be; yield each with its size."""
    if not isinstance(record, list):
        yield record, _size(encode_record(record))
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
