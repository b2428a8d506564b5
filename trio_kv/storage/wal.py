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
  be understood without those before it, and a hole is noticed.
- What a snapshot covers is dropped by whole segments (`compact`), the oldest first. Where a snapshot takes the place
  of a log that does not lead to it, a record says so (`Reset`): on disk like all else, in its order.
- **Space is taken before it is promised.** The next segment is made when a quarter of this one is used. If the disk
  is full then, there is space for what is under way (`free_log_bytes`), and the disk's user can stop in time. So a full
  disk meets the making of a segment, and not a frame: a segment has all of its space.
- **Where it has not** (`storage.ballast` says where), a frame that finds no space has promised nothing. It takes that
  of the ballast, or waits, and **the very same bytes** are written again: what is left of another frame would be
  damage.
- Any other OSError, and each one of a sync, leaves the log unusable for good (scenario D11): what is on disk is
  unknown until it is read again.

The log holds no entries in memory, only its shape, against which each batch is checked before it is written.
"""

import contextlib
import errno
import time
from collections.abc import Iterator, Sequence
from typing import Self

import attrs

from trio_kv.meter.histogram import Histogram
from trio_kv.raft.ready import HardState, Write
from trio_kv.storage.ballast import Ballast, ballast_bytes
from trio_kv.storage.batches import encode, merge, size_bytes, split
from trio_kv.storage.errors import FULL
from trio_kv.storage.files import Files
from trio_kv.storage.recovery import Recovery
from trio_kv.storage.segments import (
    SEGMENT_BYTES,
    Segment,
    Spare,
    check_segment_bytes,
    create_segment,
    records_bytes_max,
    segment_name,
    segment_numbers,
)
from trio_kv.storage.shape import LogShape, ShapeError
from trio_kv.wire.frames import (
    RESTATEMENT_BYTES,
    SECTOR_BYTES,
    Base,
    Identity,
    Kind,
    Record,
    Reset,
    SegmentHeader,
    encode_frame,
    frame_bytes,
    heard_bytes,
)

KEPT_BYTES = 64 << 10
"""Space that `free_log_bytes` leaves out, so that a node with a full disk still votes: in 128 elections."""
_FAILED = "the log failed before: what is on disk is unknown until it is read again"


class Wal:
    """A log that can be written to. Made by `create` or `resume`.

    The driver's duties: `append` one batch after the other, from one thread; acknowledge a batch when
    `append` has returned; after an OSError acknowledge nothing more and `close`; when `wants_spare` or `wants_ballast`,
    call `prepare` or `make_ballast` soon, from one other thread. A log without its spare works, but makes it while a
    batch waits. `compact` runs in the thread of `append`, also while that waits for space.

    Raises of all methods:
        OSError: the disk refused. The log must not be used any more then; only `prepare` and `make_ballast` may be
            called again where the disk is full.

    """

    def __init__(
        self, files: Files, shape: LogShape, current: Segment, spare: SegmentHeader | None, segment_bytes: int
    ) -> None:
        """Go on at the given place. Use `create` or `resume`."""
        self._files = files
        self._shape = shape
        self._segment_bytes = check_segment_bytes(segment_bytes)
        self._header = current.header
        self._name = segment_name(current.header.number)
        self._seed = current.seed
        self.offset = current.offset
        """Where the next frame goes, in bytes of the segment."""
        self._spare = Spare(files, current.header, spare, segment_bytes, self._raise_if_filled)
        self._ballast = Ballast(files, ballast_bytes(segment_bytes))
        self._is_ballast_needed = False
        """Whether it could not be made once, or was given away."""
        self.is_filled = False
        """Fault: nothing can be made, as on a full disk."""
        self._unzeroed_bytes = 0
        """So many bytes of an interrupted write are left behind the log's end: zeros go there before a frame does."""
        self._first = min(segment_numbers(files.names()))
        self._is_usable = True
        self._is_waiting = False
        """Whether a batch waits for space: all before it is as it was."""
        self.frames = 0
        """How many were written since the log was opened: each is one sync."""
        self.bytes_written = 0
        """What these took."""
        self.syncs = Histogram()
        """How long their syncs took, in seconds."""

    @classmethod
    def create(cls, files: Files, identity: Identity, *, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Make an empty log, durable on return."""
        header = create_segment(files, SegmentHeader(identity, 1, check_segment_bytes(segment_bytes)))
        return cls(files, LogShape(), Segment(header, header.seed, SECTOR_BYTES), None, segment_bytes)

    @classmethod
    def resume(cls, files: Files, recovery: Recovery, *, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Repair a log that was read, and go on with it."""
        recovery.repair()
        assert recovery.current is not None
        wal = cls(files, recovery.shape, recovery.current, recovery.spare, segment_bytes)
        wal._unzeroed_bytes = recovery.unzeroed_bytes
        return wal

    @property
    def hard_state(self) -> HardState:
        """The durable term and vote, and the incarnations that were heard of."""
        return self._shape.hard_state

    @property
    def last_index(self) -> int:
        """Index of the last durable entry."""
        return self._shape.last_index

    @property
    def base(self) -> Base:
        """The entry before the first one on disk."""
        return self._shape.base

    def term_at(self, index: int) -> int | None:
        """Return the term of an entry on disk, or of the base; None if the log does not hold it."""
        return self._shape.term_at(index)

    @property
    def segment(self) -> int:
        """Number of the segment that is written to."""
        return self._header.number

    @property
    def wants_spare(self) -> bool:
        """Whether a quarter of the segment is used and the next one isn't made yet."""
        return self._spare.header is None and self.offset * 4 >= self._header.size_bytes

    @property
    def wants_ballast(self) -> bool:
        """Whether there is no ballast."""
        return not self._ballast.is_there

    @property
    def is_short(self) -> bool:
        """Whether the disk is so full that there is no ballast. Whether the segment's zeros hold their space is unknown
        then.
        """
        return self._is_ballast_needed and not self._ballast.is_there

    @property
    def free_log_bytes(self) -> int:
        """How many bytes can be written without making a segment; `KEPT_BYTES` are kept back for hard states.

        0 if the log `is_short`. A write takes its entries' bytes, and at most `log_space.WRITE_BYTES_EXTRA` more. As
        long as there is no spare, as on a full disk, writes that fit into this number of bytes can be written. With a
        spare a frame may not fit into the last bytes before it.
        """
        if self.is_short:
            return 0
        # A small segment keeps less.
        kept = min(KEPT_BYTES, self._header.size_bytes // 8)
        free = self._header.size_bytes - self.offset - frame_bytes(0)
        restated = heard_bytes(self.hard_state)
        return max(0, free + self._spare.records_bytes_max - kept - restated)

    def fits(self, records_bytes: int) -> bool:
        """Return whether a batch is written without making a segment: in the current one, or in the spare.

        Args:
            records_bytes: what its records take (`batches.size_bytes`). A batch that takes more than a segment has
                is cut into several frames, each of which has to fit.

        """
        needed_bytes = records_bytes + heard_bytes(self.hard_state)
        return self._fits_here(needed_bytes) or self._spare.fits(needed_bytes)

    def append(self, writes: Sequence[Write]) -> None:
        """Make a batch of writes durable, in their order.

        Raises:
            AssertionError: a write does not follow on the log, or the log failed before.

        """
        for error in self.appending(writes):
            raise error

    def appending(self, writes: Sequence[Write]) -> Iterator[OSError]:
        """Do what `append` does, but where there is no space, yield the error, and try again when asked to go on.

        Whoever does not go on has a log that must not be used any more.
        """
        assert self._is_usable, _FAILED
        assert writes, "a batch holds at least one write"
        self._is_usable = False
        records = merge(writes)
        parts = encode(records)
        states = [self.hard_state, *[record for record in records if isinstance(record, HardState)]]
        room_bytes = records_bytes_max(self._segment_bytes) - max(map(heard_bytes, states))
        if size_bytes(parts) <= room_bytes:
            yield from self._write(records, parts)
        else:
            for piece in split(records, room_bytes):
                yield from self._write(piece, encode(piece))
        self._is_usable = True

    def reset(self, index: int, term: int) -> None:
        """Let a durable snapshot up to (index, term) take the place of the whole log, durably."""
        # The snapshot may have become durable before the term in which it came. To enter that term is safe: a vote in
        # it would be in this log, so none was given.
        hard_state = self.hard_state
        if term > hard_state.term:
            hard_state = attrs.evolve(hard_state, term=term, vote=None)
        records: list[Record] = [hard_state, Reset(index, term)]
        self._is_usable = False
        for error in self._write(records, encode(records)):
            raise error
        self._is_usable = True

    def compact(self, index: int) -> int:
        """Delete the segments all of whose entries are at or below `index`; return how many.

        The caller holds a durable snapshot up to `index`, or one beyond it. The segment that is written to stays.
        """
        assert self._is_usable or self._is_waiting, _FAILED
        cut = self._shape.cut(index)
        if cut is None or cut[0] == self._first:
            return 0
        was_usable, self._is_usable = self._is_usable, False
        first, base = cut
        # The oldest first, each durably: whatever ends this early leaves no hole.
        for number in range(self._first, first):
            self._files.delete(segment_name(number))
        deleted, self._first = first - self._first, first
        if base.index > self._shape.base.index:
            self._shape.compact(base)
        self._is_usable = was_usable
        return deleted

    def make_ballast(self) -> None:
        """Make the ballast, if it isn't there."""
        if self._ballast.is_there:
            return
        try:
            self._raise_if_filled(is_waiting=self._is_waiting)
            self._ballast.make()
        except OSError as error:
            self._is_ballast_needed = error.errno in FULL
            raise

    def prepare(self) -> None:
        """Make the next segment, if it isn't there. May run in another thread, beside `append`."""
        self._spare.make()

    def make_ahead(self, *, is_full: bool) -> bool:
        """Make the ballast and, if it is time or the disk was full, the next segment; return False if it is full."""
        try:
            self.make_ballast()
            if self.wants_spare or is_full:
                self.prepare()
        except OSError as error:
            if error.errno not in FULL:
                raise
            return False
        return True

    def close(self) -> None:
        """Let go of the files. Nothing is written."""
        self._is_usable = False
        self._files.close()

    def _write(self, records: Sequence[Record], parts: list[bytes]) -> Iterator[OSError]:
        """Make one frame durable."""
        needed_bytes = size_bytes(parts) + heard_bytes(self.hard_state)
        if not self._fits_here(needed_bytes):
            yield from self._roll(needed_bytes)
        if self.offset == SECTOR_BYTES:
            restated = (self._shape.hard_state, self._shape.last)
            records, parts = [*restated, *records], [*encode(restated), *parts]
        for record in records:
            try:
                self._shape.put(record)
            except ShapeError as error:
                raise AssertionError(f"a write does not follow on the log: {error}") from error
        yield from self._put_frame(Kind.RECORDS, parts)

    def _fits_here(self, records_bytes: int) -> bool:
        """Return whether a frame with so many bytes of records leaves space for the seal of the current segment."""
        frame = frame_bytes(RESTATEMENT_BYTES + records_bytes)
        return self.offset + frame + frame_bytes(0) <= self._header.size_bytes

    def _put_frame(self, kind: Kind, parts: Sequence[bytes]) -> Iterator[OSError]:
        if self._unzeroed_bytes:
            yield from self._put(bytes(self._unzeroed_bytes))
            self._unzeroed_bytes = 0
        data = encode_frame(kind, parts, self._seed, self.offset)
        yield from self._put(data)
        self.offset += len(data)
        self.bytes_written += len(data)
        self.frames += 1

    def _put(self, data: bytes) -> Iterator[OSError]:
        """Write behind the log's end, as often as it takes to find space, and sync once."""
        while True:
            try:
                self._files.write(self._name, self.offset, data)
                break
            except OSError as error:
                if error.errno not in FULL:
                    raise
                self._is_ballast_needed = True
                if self._ballast.free():
                    self._take_space(len(data) + KEPT_BYTES)
                else:
                    yield from self._wait(error)
        began_s = time.perf_counter()
        self._files.sync(self._name)
        self.syncs.note(time.perf_counter() - began_s)

    def _take_space(self, size_bytes: int) -> None:
        """Take what the ballast left before somebody else does: for what is under way, and for votes after it.

        Zeros are written over zeros. Blocks that the file shared become its own by that.
        """
        size_bytes = min(size_bytes, self._header.size_bytes - self.offset)
        with contextlib.suppress(OSError):  # What did not find space here tells when it is needed.
            self._files.write(self._name, self.offset, bytes(size_bytes))

    def _roll(self, payload_bytes: int) -> Iterator[OSError]:
        """Go on in the next segment, which has space for a first frame with such a payload."""
        while True:
            try:
                self._spare.make(payload_bytes)
                break
            except OSError as error:
                if error.errno not in FULL:
                    raise
                yield from self._wait(error)
        # The seal comes last: it says that the next segment is there.
        yield from self._put_frame(Kind.SEAL, ())
        header = self._header = self._spare.take()
        self._name = segment_name(header.number)
        self._seed = header.seed
        self.offset = SECTOR_BYTES
        self._shape.segment = header.number

    def _wait(self, error: OSError) -> Iterator[OSError]:
        self._is_waiting = True
        try:
            yield error
        finally:
            self._is_waiting = False

    def _raise_if_filled(self, *, is_waiting: bool = False) -> None:
        if self.is_filled:
            raise OSError(errno.ENOSPC, "a full disk that was asked for")
        if is_waiting:
            raise OSError(errno.ENOSPC, "what room there is goes to the batch that waits for it")
