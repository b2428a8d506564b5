"""The bytes of the write-ahead log: segment headers, frames and records. Pure.

A segment is a file that was full of zeros before it was used, cut into sectors of 512 bytes: the unit that
a disk writes whole or not at all. Sector 0 is the segment's header. Frames follow, each beginning at a
sector and filling its last one, so that a sector is part of one frame only::

    frame   = check u32 | body check u32 | length u32 | kind u8 | payload | fill (1 to 512 bytes)
    payload = records one after the other, `length` bytes in all
    record  = tag u8 | ...

What the rules of recovery (`storage.recovery`) rest on:

- **No sector of a frame is all zero.** Entry headers hold short runs of zeros, commands hold none, and the
  fill is not zero, so the last sector isn't either. A zero sector therefore is one that was never written. No
  single wrong bit or byte makes a sector zero: that is why the fill isn't zeros behind one end mark.
- **The length has its own check.** A wrong bit in a length that makes the frame longer, into the zeros behind
  it, would otherwise look just like a write that was interrupted, and acknowledged entries would be cut off.
- **A frame is valid at one place only.** Its check starts from the segment's own check plus the frame's
  offset: bytes that were written to a wrong place, or that a client put into a value, are never taken for a
  frame.

All numbers are little-endian; checks are CRC-32C (Castagnoli), as in iSCSI and ext4.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import assert_never

import attrs
from crc32c import crc32c

from trio_kv.raft.entry import Command, Entry, decode_entries
from trio_kv.raft.ready import HardState

SECTOR_BYTES = 512
"""What a disk writes whole or not at all. Larger physical sectors only make tearing rarer."""
ZERO_SECTOR = bytes(SECTOR_BYTES)
FORMAT = 4
"""Version of these bytes and of the commands in them. Version 3 has no incarnations in its hard states, version 2 fewer
members in its commands, and version 1 had commands of another shape."""
FORMATS_READ = (2, 3, FORMAT)

_MAGIC = b"trio_kv\n"
_FILL = b"\xa5" * SECTOR_BYTES
_SEGMENT = struct.Struct("<8sI16sIQQQ")
"""magic, format, cluster, node, incarnation, segment number, size of the file in bytes."""
_CHECK = struct.Struct("<I")
_FRAME = struct.Struct("<IIB")
"""body check, length, kind: what a frame's own check covers."""
_FRAME_HEADER_BYTES = _CHECK.size + _FRAME.size
_HARD_STATE = struct.Struct("<BQI")
"""tag, term, vote (0 is none: nodes are counted from 1)."""
_HEARD = struct.Struct("<BQIB")
"""tag, term, vote, how many incarnations follow: a hard state that has some."""
_INCARNATION = struct.Struct("<IQ")
"""node, incarnation."""
_TRUNCATE = struct.Struct("<BQ")
_BASE = struct.Struct("<BQQ")
"""tag, index, term: a base or a reset."""
_ENTRIES = struct.Struct("<BI")
RESTATEMENT_BYTES = _HARD_STATE.size + _BASE.size
"""What the first frame of a segment holds besides its records; `heard_bytes` come on top."""


class FrameError(ValueError):
    """These bytes are not what they should be; the text says why."""


class Kind(IntEnum):
    """What a frame is."""

    RECORDS = 1
    SEAL = 2
    """The log goes on in the next segment. Durable before that segment's first frame is written."""


class _Tag(IntEnum):
    HARD_STATE = 1
    TRUNCATE = 2
    BASE = 3
    ENTRIES = 4
    RESET = 5
    HEARD = 6


@attrs.frozen
class Identity:
    """Whose log it is."""

    cluster: str
    """32 hexadecimal digits, drawn when the cluster was made."""
    node: int
    incarnation: int
    """Drawn when the node's directory was made: a node that lost its disk comes back as another one."""


@attrs.frozen
class SegmentHeader:
    """Sector 0 of a segment."""

    identity: Identity
    number: int
    """Segments are counted from 1, without gaps."""
    size_bytes: int
    """Size of the whole file, so that a file cut short is noticed."""
    format: int = FORMAT

    def encode(self) -> bytes:
        """Return the header's sector."""
        identity = self.identity
        data = _SEGMENT.pack(
            _MAGIC,
            self.format,
            bytes.fromhex(identity.cluster),
            identity.node,
            identity.incarnation,
            self.number,
            self.size_bytes,
        )
        data += _FILL[: SECTOR_BYTES - len(data) - _CHECK.size]
        return data + _CHECK.pack(crc32c(data))

    @property
    def seed(self) -> int:
        """What the checks of this segment's frames start from."""
        return int(_CHECK.unpack(self.encode()[-_CHECK.size :])[0])


def decode_segment_header(data: bytes) -> SegmentHeader:
    """Return the header at the beginning of a segment's bytes.

    Raises:
        FrameError: there is none, or it is broken, or of an unknown format.

    """
    if len(data) < SECTOR_BYTES:
        raise FrameError(f"the file ends at byte {len(data)}, inside its header")
    checked, check = data[: SECTOR_BYTES - _CHECK.size], data[SECTOR_BYTES - _CHECK.size : SECTOR_BYTES]
    magic, version, cluster, node, incarnation, number, size_bytes = _SEGMENT.unpack_from(data)
    if crc32c(checked) != _CHECK.unpack(check)[0] or magic != _MAGIC:
        raise FrameError("the header's check does not match its bytes")
    if version not in FORMATS_READ:
        raise FrameError(f"the log has format {version}, this program reads format {FORMAT}")
    return SegmentHeader(Identity(cluster.hex(), node, incarnation), number, size_bytes, version)


@attrs.frozen
class Frame:
    """A frame whose header is right: `offset` to `end` is its place, in bytes of the segment."""

    kind: int
    offset: int
    length: int
    body_check: int

    @property
    def end(self) -> int:
        """Where the frame ends: the next one may begin here."""
        return self.offset + frame_bytes(self.length)

    def is_whole(self, data: bytes) -> bool:
        """Return whether all bytes of the frame are as they were written."""
        body = memoryview(data)[self.offset + _FRAME_HEADER_BYTES : self.end]
        return self.end <= len(data) and crc32c(body) == self.body_check

    def payload(self, data: bytes) -> bytes:
        """Return the frame's payload out of the segment's bytes."""
        start = self.offset + _FRAME_HEADER_BYTES
        return data[start : start + self.length]


def frame_bytes(length: int) -> int:
    """Return how many bytes a frame with a payload of `length` bytes takes."""
    return ((_FRAME_HEADER_BYTES + length) // SECTOR_BYTES + 1) * SECTOR_BYTES


def encode_frame(kind: Kind, parts: Sequence[bytes], seed: int, offset: int) -> bytes:
    """Return the frame at byte `offset` of the segment with this seed; its payload is `parts` in a row."""
    payload = b"".join(parts)
    used_bytes = _FRAME_HEADER_BYTES + len(payload)
    body = payload + _FILL[: SECTOR_BYTES - used_bytes % SECTOR_BYTES]
    checked = _FRAME.pack(crc32c(body), len(payload), kind)
    data = b"".join((_CHECK.pack(crc32c(checked, check_start(seed, offset))), checked, body))
    # Recovery takes a zero sector for one that was never written. A run of zeros as long as a sector would
    # make it cut off acknowledged entries.
    assert ZERO_SECTOR not in data, "a command holds a run of 512 zero bytes"
    return data


def read_frame(data: bytes, seed: int, offset: int) -> Frame | None:
    """Return the frame at byte `offset`, if the header of one stands there. Its body is not looked at."""
    end = offset + _FRAME_HEADER_BYTES
    if end > len(data):
        return None
    checked = data[offset + _CHECK.size : end]
    if crc32c(checked, check_start(seed, offset)) != _CHECK.unpack_from(data, offset)[0]:
        return None
    body_check, length, kind = _FRAME.unpack(checked)
    return Frame(kind, offset, length, body_check)


def check_start(seed: int, offset: int) -> int:
    """Return where a frame's check starts: another start always gives another check."""
    return (seed + offset) & 0xFFFFFFFF


@attrs.frozen
class Truncate:
    """Record: drop every entry with this index or a higher one."""

    index: int


@attrs.frozen
class Base:
    """Record: the last entry of the log before this segment. Only in a segment's first frame."""

    index: int
    term: int


@attrs.frozen
class Reset:
    """Record: drop the whole log. It goes on after this place, up to which a durable snapshot holds all."""

    index: int
    term: int


Record = HardState | Truncate | Base | Reset | Sequence[Entry]


def encode_record(record: Record) -> list[bytes]:
    """Return a record's bytes, in pieces: entries bring theirs along and are not packed again."""
    match record:
        case HardState(term, vote, ()):
            assert vote != 0, "nodes are counted from 1"
            return [_HARD_STATE.pack(_Tag.HARD_STATE, term, vote or 0)]
        case HardState(term, vote, incarnations):
            assert vote != 0, "nodes are counted from 1"
            head = _HEARD.pack(_Tag.HEARD, term, vote or 0, len(incarnations))
            return [head, *[_INCARNATION.pack(*each) for each in incarnations]]
        case Truncate(index):
            return [_TRUNCATE.pack(_Tag.TRUNCATE, index)]
        case Base(index, term):
            return [_BASE.pack(_Tag.BASE, index, term)]
        case Reset(index, term):
            return [_BASE.pack(_Tag.RESET, index, term)]
        case Sequence():
            encoded = b"".join([entry.encoded for entry in record])
            return [_ENTRIES.pack(_Tag.ENTRIES, len(encoded)), encoded]
        case _:
            assert_never(record)


ENTRIES_HEADER_BYTES = _ENTRIES.size
"""What a record of entries takes besides their own bytes."""


def heard_bytes(hard_state: HardState) -> int:
    """Return what a hard state takes more because of the incarnations in it."""
    count = len(hard_state.incarnations)
    return _HEARD.size - _HARD_STATE.size + count * _INCARNATION.size if count else 0


def decode_records(payload: bytes, decode_command: Callable[[bytes], Command]) -> Iterator[Record]:
    """Yield the records of a payload.

    Raises:
        ValueError: these are not the bytes of records (FrameError is one).

    """
    offset = 0
    while offset < len(payload):
        tag = payload[offset]
        try:
            match tag:
                case _Tag.HARD_STATE:
                    _, term, vote = _HARD_STATE.unpack_from(payload, offset)
                    offset += _HARD_STATE.size
                    yield HardState(term, vote or None)
                case _Tag.HEARD:
                    _, term, vote, count = _HEARD.unpack_from(payload, offset)
                    start = offset + _HEARD.size
                    offset = start + count * _INCARNATION.size
                    if offset > len(payload):
                        raise FrameError(f"a hard state is cut short at byte {start} of its frame")
                    yield HardState(
                        term, vote or None, tuple(_INCARNATION.iter_unpack(payload[start:offset]))
                    )
                case _Tag.TRUNCATE:
                    yield Truncate(_TRUNCATE.unpack_from(payload, offset)[1])
                    offset += _TRUNCATE.size
                case _Tag.BASE:
                    yield Base(*_BASE.unpack_from(payload, offset)[1:])
                    offset += _BASE.size
                case _Tag.RESET:
                    yield Reset(*_BASE.unpack_from(payload, offset)[1:])
                    offset += _BASE.size
                case _Tag.ENTRIES:
                    start = offset + _ENTRIES.size
                    offset = start + _ENTRIES.unpack_from(payload, offset)[1]
                    if offset > len(payload):
                        raise FrameError(f"a record of entries is cut short at byte {start} of its frame")
                    yield list(decode_entries(payload[start:offset], decode_command))
                case _:
                    raise FrameError(f"unknown record {tag} at byte {offset} of its frame")
        except struct.error as error:
            raise FrameError(f"record {tag} is cut short at byte {offset} of its frame") from error
