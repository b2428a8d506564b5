"""The files of a write-ahead log: what they are called, how large they are, and what fits into one."""

import re
import threading
from collections.abc import Callable, Iterable

import attrs

from trio_kv.storage.files import Files
from trio_kv.wire.frames import RESTATEMENT_BYTES, SECTOR_BYTES, SegmentHeader, frame_bytes

SEGMENT_BYTES = 8 << 20
"""Default size of a segment."""
SEGMENT_BYTES_MIN = 4096
SEGMENT_BYTES_MAX = 1 << 30
OVERHEAD_BYTES = SECTOR_BYTES + frame_bytes(0)
"""What a segment holds besides frames with records: its header and its seal."""
_NAME = re.compile(r"wal-(\d{16})\.log")


def segment_name(number: int) -> str:
    """Return the file name of a segment."""
    return f"wal-{number:016d}.log"


def segment_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of the segments among these file names, in order."""
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


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


def records_bytes_max(segment_bytes: int) -> int:
    """Return how many bytes of records surely fit into an empty segment's first frame."""
    # A frame has at least one byte of fill, and its header takes less than a sector.
    return segment_bytes - OVERHEAD_BYTES - frame_bytes(0) - RESTATEMENT_BYTES


@attrs.frozen
class Segment:
    """A segment that can be written to."""

    header: SegmentHeader
    seed: int
    offset: int
    """Where the next frame goes."""


def create_segment(files: Files, header: SegmentHeader) -> SegmentHeader:
    """Make an empty segment, durably. Raises OSError."""
    files.create(segment_name(header.number), header.size_bytes, header.encode())
    return header


class Spare:
    """The next segment, made ahead, so that writing does not wait for it. `make` may run in another thread.

    Args:
        files: the directory of the log.
        current: the segment that is written to.
        header: the next one, if it is there already.
        segment_bytes: how large one is made, unless what it is to hold is larger.
        before: called before one is made; may refuse that by an OSError.

    """

    def __init__(
        self,
        files: Files,
        current: SegmentHeader,
        header: SegmentHeader | None,
        segment_bytes: int,
        before: Callable[[], object],
    ) -> None:
        """Take it over; see the class."""
        self.header = header
        """None as long as it isn't there."""
        self._files = files
        self._current = current
        self._segment_bytes = segment_bytes
        self._before = before
        self._lock = threading.Lock()

    @property
    def records_bytes_max(self) -> int:
        """How many bytes of records surely fit into its first frame; 0 if it isn't there."""
        header = self.header
        return 0 if header is None else records_bytes_max(header.size_bytes)

    def fits(self, records_bytes: int) -> bool:
        """Return whether it is there, and a frame with so many bytes of records fits into it."""
        return self.header is not None and records_bytes <= self.records_bytes_max

    def make(self, records_bytes: int = 0) -> None:
        """Make it, if it isn't there, with space for a frame of so many bytes of records. Raises OSError.

        An entry may be larger than a segment: then the spare, which holds nothing yet, gives way to a larger one.
        """
        with self._lock:
            if not self.fits(records_bytes):
                self._before()
                needed = OVERHEAD_BYTES + frame_bytes(RESTATEMENT_BYTES + records_bytes)
                number, size_bytes = self._current.number + 1, max(self._segment_bytes, needed)
                self.header = create_segment(
                    self._files, SegmentHeader(self._current.identity, number, size_bytes)
                )

    def take(self) -> SegmentHeader:
        """Let it be the segment that is written to, and return it; the one after it isn't there yet."""
        with self._lock:
            assert self.header is not None
            self._current, self.header = self.header, None
            return self._current
