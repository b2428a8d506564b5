"""Reading a write-ahead log back, and telling an interrupted write from damage.

What was acknowledged must never be cut off, and a node must start by itself after a power cut. Both hold
because writes are made one at a time: a frame is written only when the one before it is durable. So at most
the last frame of the log can be incomplete, and each of its sectors is as it was written or still zero.

A frame is **torn** if it is not whole, at least one of its sectors is still zero, and nothing was written
after it. It was never acknowledged: what is left of it is zeroed, with a warning. **All else is damage**, and
the node refuses to start: a wrong frame without a zero sector, a valid one after it, a file that is short or
missing, an entry that does not follow on the one before it, the log of another node. (Scenarios D9 and D10; why
the two must be told apart: "Protocol-Aware Recovery", https://doi.org/10.1145/3241062.)

The segments before a snapshot's place may be gone, in order: the first one that is left says what came before it.
A log that begins later than the snapshot ends lacks entries, and is damaged.

No rule can tell one case from a torn frame: a disk that turns a whole sector of the last frame back into zeros.

A process that died between write and sync, or after a sync that failed, leaves a frame that can be read now and is lost
with the next power cut; so do the zeros of a repair. So the last frame, and zeros behind it, are written once more and
synced before the node believes in them. Where there is no space for that, the node syncs what is there, and reads past
the cache to see that the disk holds it.
"""

import errno
from collections.abc import Callable, Sequence

import attrs

from trio_kv.kv.commands import decode_command as decode_kv_command
from trio_kv.raft.entry import Command, Entry
from trio_kv.raft.log import Log
from trio_kv.raft.ready import HardState
from trio_kv.raft.runs import UNAPPLIED_ENTRIES_MAX, Entries, SharedReader
from trio_kv.storage.errors import FULL, DamagedError
from trio_kv.storage.files import TEMPORARY_SUFFIX, Files, remove
from trio_kv.storage.segments import Segment, segment_name, segment_numbers
from trio_kv.storage.shape import LogShape, ShapeError
from trio_kv.storage.snapshot_reading import SnapshotInfo, snapshot_names
from trio_kv.wire.frames import (
    SECTOR_BYTES,
    ZERO_SECTOR,
    Base,
    Frame,
    FrameError,
    Identity,
    Kind,
    Record,
    Reset,
    SegmentHeader,
    Truncate,
    decode_records,
    decode_segment_header,
    read_frame,
)

_ZEROS = bytes(1 << 16)


@attrs.frozen
class Recovered:
    """What a log held when it was opened."""

    hard_state: HardState
    base: Base
    """The entry before the first one: (0, 0) as long as the log is whole, later the snapshot's place."""
    entries: Sequence[Entry]
    warnings: tuple[str, ...]
    """For people: what was cut off."""
    snapshot: SnapshotInfo | None = None
    """The newest snapshot, if `storage.opening` has put the two together."""

    def log(self, base_time_us: int) -> Log:
        """Return the log, which goes on from the snapshot's state of this cluster time."""
        base = self.base
        return Log(self.entries, base_index=base.index, base_term=base.term, base_time_us=base_time_us)

    @property
    def snapshot_bytes(self) -> int:
        """The size of the newest snapshot; 0 without one."""
        return 0 if self.snapshot is None else self.snapshot.total_bytes


@attrs.define
class Recovery:
    """Reads the segments of one log, in order, and judges them (`read`); then repairs them (`repair`).

    Raises of both:
        DamagedError: the log can't be believed; no file was changed.
        OSError: the disk refused.

    """

    files: Files
    identity: Identity
    decode_command: Callable[[bytes], Command] = decode_kv_command
    covered_index: int = 0
    """A snapshot holds all up to here: the log may begin behind it, and not later."""
    shape: LogShape = attrs.field(factory=LogShape)
    entries: Entries = attrs.field(init=False)
    warnings: list[str] = attrs.field(factory=list)
    torn: tuple[str, int] | None = None
    """File and offset of an interrupted write."""
    current: Segment | None = None
    """The segment that the log goes on in: the first one that is not sealed."""
    spare: SegmentHeader | None = None
    unzeroed_bytes: int = 0
    """After `repair`: so much of an interrupted write is left behind the log's end, as there is no space to zero it."""
    _last_frame: tuple[str, int, bytes] | None = None
    _is_begun: bool = True
    """Whether it is known what came before the first record that is left."""

    def __attrs_post_init__(self) -> None:
        decode = self.decode_command
        self.entries = Entries(shared=decode.shared if isinstance(decode, SharedReader) else None)
        if isinstance(decode, SharedReader):
            decode.covered_index = self.covered_index

    def read(self) -> Recovered:
        """Read everything and judge it. Nothing is changed."""
        self._read_segments(segment_numbers(self.files.names()))
        self.entries.end_reading()
        return Recovered(self.shape.hard_state, self.shape.base, self.entries, tuple(self.warnings))

    def _read_segments(self, numbers: list[int]) -> None:
        first, last = min(numbers, default=1), max(numbers, default=1)
        self._is_begun = first == 1
        for number in range(first, last + 1):
            name = segment_name(number)
            if number not in numbers:
                raise self._damage(name, 0, "the file is missing")
            data = self.files.read(name)
            header = self._read_header(name, number, data)
            if self.current is None:
                self._read_frames(name, header, data)
            else:
                self._read_spare(name, header, data, self.current)
        if self.current is None:
            raise self._damage(
                segment_name(last + 1),
                0,
                f"the file is missing: segment {last} says that the log goes on there",
            )
        self.shape.is_beginning_gone = False
        self._check_beginning(first)

    def _check_beginning(self, first: int) -> None:
        """Check that what is gone before the first segment isn't needed."""
        name = segment_name(max(first - 1, 1))
        gone = "the file is missing: " if first > 1 else ""
        if not self._is_begun:
            raise self._damage(name, 0, f"{gone}segment {first} was not begun")
        if self.shape.base.index > self.covered_index:
            raise self._damage(
                name,
                0,
                f"{gone}the log begins after entry {self.shape.base.index}, and the snapshot ends at"
                f" {self.covered_index}",
            )

    def _read_header(self, name: str, number: int, data: bytes) -> SegmentHeader:
        try:
            header = decode_segment_header(data)
        except FrameError as error:
            raise self._damage(name, 0, str(error)) from error
        if header.identity != self.identity:
            raise self._damage(name, 0, f"it belongs to {header.identity}, not to {self.identity}")
        if header.number != number:
            raise self._damage(name, 0, f"it is segment {header.number} under the name of segment {number}")
        if header.size_bytes != len(data):
            raise self._damage(
                name, len(data), f"the file has {len(data)} bytes instead of {header.size_bytes}"
            )
        return header

    def _read_spare(self, name: str, header: SegmentHeader, data: bytes, current: Segment) -> None:
        """Check a segment behind the log's end: there is at most one, and it was never written to."""
        offset = _next_used(data, SECTOR_BYTES)
        if read_frame(data, header.seed, SECTOR_BYTES) is not None:
            end = segment_name(current.header.number)
            raise self._damage(
                end, current.offset, f"the log goes on in {name}, and the seal that says so is not here"
            )
        if offset < len(data):
            raise self._damage(name, offset, "there is data in a segment that was not begun")
        if self.spare is not None:
            raise self._damage(name, 0, "there are two segments behind the one in which the log ends")
        self.spare = header

    def _read_frames(self, name: str, header: SegmentHeader, data: bytes) -> None:
        """Read one segment's frames; afterwards the log ends here, unless a seal says that it goes on."""
        seed = header.seed
        self.shape.segment = header.number
        offset = SECTOR_BYTES
        while offset < len(data):
            frame = read_frame(data, seed, offset)
            if frame is None or not frame.is_whole(data):
                break
            self._last_frame = (name, offset, data[offset : frame.end])
            if frame.kind == Kind.SEAL:
                self._check_unused(name, data, frame.end)
                return
            self._read_records(name, frame, data)
            offset = frame.end
        if _next_used(data, offset) < len(data):
            self._judge(name, seed, data, offset)
        self.current = Segment(header, seed, offset)

    def _check_unused(self, name: str, data: bytes, offset: int) -> None:
        used = _next_used(data, offset)
        if used < len(data):
            raise self._damage(name, used, "there is data behind the end of the segment")

    def _read_records(self, name: str, frame: Frame, data: bytes) -> None:
        """Put a whole frame's records into the log."""
        if frame.kind != Kind.RECORDS:
            raise self._damage(name, frame.offset, f"unknown kind of frame {frame.kind}")
        try:
            records = list(decode_records(frame.payload(data), self.decode_command))
            if not self._is_begun:
                self._begin(records)
            for record in records:
                self._put(record)
        except ShapeError as error:
            raise self._damage(name, frame.offset, str(error)) from error
        except ValueError as error:
            raise self._damage(
                name, frame.offset, f"its check is right, but it can't be read: {error}"
            ) from error

    def _begin(self, records: Sequence[Record]) -> None:
        """Take over what the first segment says of those that are gone."""
        match records:
            case [HardState() as hard_state, Base() as base, *_]:
                self.shape.begin(hard_state, base)
                self._is_begun = True
            case _:
                raise FrameError("it does not begin with the hard state and the last entry before it")

    def _put(self, record: Record) -> None:
        self.shape.put(record)
        match record:
            case Truncate(index):
                self.entries.cut(index - self.shape.base.index - 1)
            case Reset(index, _):
                self.entries.clear()
            case list():
                self.entries.extend(record)
                self._pack()
            case _:
                pass

    def _pack(self) -> None:
        """Pack what a snapshot covers, and where the log goes on for long, what will not be applied soonest."""
        covered = self.covered_index - self.shape.base.index
        self.entries.pack(max(min(covered, len(self.entries)), len(self.entries) - UNAPPLIED_ENTRIES_MAX))

    def _judge(self, name: str, seed: int, data: bytes, offset: int) -> None:
        """Decide about a frame at `offset` that is not whole: torn, or damage."""
        for place in range(offset + SECTOR_BYTES, len(data), SECTOR_BYTES):
            if read_frame(data, seed, place) is not None:
                raise self._damage(
                    name, offset, f"it is not as it was written, and what follows at byte {place} is"
                )
        if not _is_zero(data, offset):
            # A sector is written whole or not at all: this one was written, so its header must be right, and
            # it says where the frame ends.
            frame = read_frame(data, seed, offset)
            if frame is None:
                raise self._damage(name, offset, "the header of a frame is not as it was written")
            if frame.end > len(data) or not any(
                _is_zero(data, place) for place in range(offset, frame.end, SECTOR_BYTES)
            ):
                raise self._damage(
                    name, offset, "a frame is not as it was written, though all its sectors were"
                )
            self._check_unused(name, data, frame.end)
        self.torn = (self.files.location(name), offset)
        self.warnings.append(
            f"{self.files.location(name)}: the write at byte {offset} was interrupted before it was complete."
            " It was never acknowledged and is cut off."
        )

    def repair(self) -> None:
        """Make durable what was read, and remove what is left of an interrupted write.

        Each step may be interrupted in its turn, and may have been before.
        """
        assert self.current is not None
        if self._last_frame is not None:
            name, offset, data = self._last_frame
            if self._write_anew(name, offset, data) != data:
                raise OSError(errno.ENOSPC, "no room to write anew what the disk has lost")
        # Also zeros that were read may not be durable: an earlier repair may have written them and failed to
        # sync.
        name, offset = segment_name(self.current.header.number), self.current.offset
        found = self._write_anew(name, offset, bytes(self.current.header.size_bytes - offset))
        self.unzeroed_bytes = len(found.rstrip(b"\0"))
        names = self.files.names()
        for name in names:
            if name.endswith(TEMPORARY_SUFFIX):
                remove(self.files, name)
        self._believe(names)
        # A process that died right after the rename may have left a name that is not durable: frames that
        # are synced into that file would vanish together with it.
        self.files.sync_directory()

    def _believe(self, names: list[str]) -> None:
        """Make durable what was read: whoever wrote it may have died before it was, or have run without syncs."""
        for name in (*map(segment_name, segment_numbers(names)), *snapshot_names(names)):
            self.files.sync(name)

    def _write_anew(self, name: str, offset: int, data: bytes) -> bytes:
        """Make these bytes durable; return what is durable there: something else only if there is no space."""
        try:
            self.files.write(name, offset, data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.files.sync(name)
            self.files.uncache(name)
            return self.files.read_at(name, offset, len(data))
        self.files.sync(name)
        return data

    def _damage(self, name: str, offset: int, reason: str) -> DamagedError:
        return DamagedError(self.files.location(name), offset, reason)


def _is_zero(data: bytes, offset: int) -> bool:
    return data[offset : offset + SECTOR_BYTES] == ZERO_SECTOR


def _next_used(data: bytes, offset: int) -> int:
    """Return the offset of the next byte that is not zero, or the end."""
    # Comparing goes at the speed of memory; stripping looks at each byte, and most of a segment may be zeros.
    for start in range(offset, len(data), len(_ZEROS)):
        chunk = data[start : start + len(_ZEROS)]
        if chunk != _ZEROS[: len(chunk)]:
            return start + len(chunk) - len(chunk.lstrip(b"\0"))
    return len(data)
