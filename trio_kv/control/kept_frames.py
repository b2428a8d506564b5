"""The frames of the last ten minutes: what the rewind shows, also after the page was loaded anew.

Frames resemble one another: packed by the dozen they take a tenth of their bytes. Packing is for a thread; until that
is done the frames are kept as they are.

Invariant: after each call at most `bytes_max` are held, and nothing that is older than `age_s` than the newest frame;
what is kept has no gap.
"""

import zlib
from collections import deque
from collections.abc import Iterator

import attrs

from trio_kv.control.frames import Frame

AGE_S = 600.0
BYTES_MAX = 32 << 20
PACKED_FRAMES = 64
"""So many are packed together: what is looked at is unpacked as a whole."""
FRAME_OVERHEAD_BYTES = 200
"""Objects of Python around a frame, or around a pack."""
COMPRESSION = 3


@attrs.frozen(eq=False)
class Pack:
    """Some frames that follow one another, packed."""

    first: int
    count: int
    first_time_s: float
    last_time_s: float
    data: bytes

    def texts(self) -> list[bytes]:
        """Return their JSON. Takes a millisecond or two: for a thread."""
        return zlib.decompress(self.data).split(b"\n")


def pack(frames: list[Frame]) -> Pack:
    """Pack frames. Takes some milliseconds: for a thread."""
    first, last = frames[0], frames[-1]
    data = zlib.compress(b"\n".join([frame.text for frame in frames]), COMPRESSION)
    return Pack(first.number, len(frames), first.time_s, last.time_s, data)


@attrs.frozen
class Kept:
    """What there is."""

    first: int
    last: int
    first_time_s: float
    last_time_s: float


class KeptFrames:
    """See above.

    Args:
        bytes_max: how many bytes are held at most.
        age_s: how long a frame is kept.

    """

    def __init__(self, bytes_max: int = BYTES_MAX, age_s: float = AGE_S) -> None:
        """Have none yet; see the class."""
        self.size_bytes = 0
        """What is held, with what Python needs beside it."""
        self._bytes_max = bytes_max
        self._age_s = age_s
        self._packs: deque[Pack] = deque()
        self._frames: deque[Frame] = deque()

    def add(self, frame: Frame) -> None:
        """Keep the next frame, and drop what is too old or too much."""
        assert not self._frames or frame.number == self._frames[-1].number + 1
        self._frames.append(frame)
        self.size_bytes += _size_of(frame.text)
        self._drop(frame.time_s - self._age_s)

    def due(self) -> list[Frame]:
        """Return frames that are to be packed now; none if it is not time for that."""
        if len(self._frames) < PACKED_FRAMES:
            return []
        return [self._frames[place] for place in range(PACKED_FRAMES)]

    def replace(self, packed: Pack) -> None:
        """Keep a pack in the place of its frames, as far as they are still here."""
        if not self._frames or self._frames[0].number > packed.first:
            return  # They were dropped meanwhile, the oldest first.
        for _ in range(packed.count):
            self.size_bytes -= _size_of(self._frames.popleft().text)
        self._packs.append(packed)
        self.size_bytes += _size_of(packed.data)

    def kept(self) -> Kept | None:
        """Return what there is, if anything."""
        if not self._frames and not self._packs:
            return None
        oldest = self._packs[0] if self._packs else None
        first = self._frames[0] if oldest is None else oldest
        number = first.number if isinstance(first, Frame) else first.first
        first_time_s = first.time_s if isinstance(first, Frame) else first.first_time_s
        if self._frames:
            last = self._frames[-1]
            return Kept(number, last.number, first_time_s, last.time_s)
        newest = self._packs[-1]
        return Kept(number, newest.first + newest.count - 1, first_time_s, newest.last_time_s)

    def pieces(self, first: int, count: int) -> list[Pack | Frame]:
        """Return what holds these frames, as far as they are kept, in their order. `texts` unpacks it."""
        last = first + count - 1
        packs = [each for each in self._packs if each.first <= last and each.first + each.count > first]
        return [*packs, *(frame for frame in self._frames if first <= frame.number <= last)]

    def _drop(self, time_s: float) -> None:
        while self._packs and (self._packs[0].last_time_s < time_s or self.size_bytes > self._bytes_max):
            self.size_bytes -= _size_of(self._packs.popleft().data)
        if self._packs:
            return
        while self._frames and (self._frames[0].time_s < time_s or self.size_bytes > self._bytes_max):
            self.size_bytes -= _size_of(self._frames.popleft().text)


def texts(pieces: list[Pack | Frame], first: int, count: int, bytes_max: int) -> list[bytes]:
    """Return the JSON of these frames: the first one there is, and of the others as many as are not too many bytes.

    It unpacks them: for a thread.
    """
    found: list[bytes] = []
    size_bytes = 0
    for number, text in _unpack(pieces):
        if not first <= number < first + count:
            continue
        size_bytes += len(text)
        if found and size_bytes > bytes_max:
            break
        found.append(text)
    return found


def _unpack(pieces: list[Pack | Frame]) -> Iterator[tuple[int, bytes]]:
    for piece in pieces:
        if isinstance(piece, Frame):
            yield piece.number, piece.text
        else:
            yield from enumerate(piece.texts(), piece.first)


def _size_of(data: bytes) -> int:
    return len(data) + FRAME_OVERHEAD_BYTES
