"""The bytes of a snapshot's file. Pure.

::

    file   = header | chunk, one after the other | end
    header = magic | format u32 | cluster | node u32 | incarnation u64 | index u64 | term u64 | check u32
    chunk  = check u32 | body check u32 | length u32 | number u32 | kind u8 (1) | `length` bytes
    end    = the same with number = count of chunks, kind 2 | bytes of all chunks u64

The file gets its name only when all of it is durable and was read back, so unlike the log it has nothing that may
be torn: whatever is not as it was written is damage. As in the log a frame's check starts from the file's own
check plus the frame's offset, so that no frame of another file, or of another place, is taken for this one's.

All numbers are little-endian; checks are CRC-32C.
"""

import struct
from enum import IntEnum

import attrs
from crc32c import crc32c

from trio_kv.wire.frames import FrameError, Identity, check_start

FORMAT = 1
"""Version of these bytes."""

_MAGIC = b"kv_snap\n"
_HEADER = struct.Struct("<8sI16sIQQQ")
_CHECK = struct.Struct("<I")
_FRAME = struct.Struct("<IIIB")
"""body check, length, number, kind: what a frame's own check covers."""
_TOTAL = struct.Struct("<Q")
HEADER_BYTES = _HEADER.size + _CHECK.size
FRAME_HEADER_BYTES = _CHECK.size + _FRAME.size


class FrameKind(IntEnum):
    """What a frame of a snapshot is."""

    CHUNK = 1
    END = 2


@attrs.frozen
class SnapshotHeader:
    """The beginning of a snapshot's file: what it covers, and whose it is."""

    identity: Identity
    """The node that wrote the file: a snapshot that came from a leader is the receiver's own."""
    index: int
    term: int

    def encode(self) -> bytes:
        """Return the header's bytes."""
        identity = self.identity
        cluster = bytes.fromhex(identity.cluster)
        data = _HEADER.pack(
            _MAGIC, FORMAT, cluster, identity.node, identity.incarnation, self.index, self.term
        )
        return data + _CHECK.pack(crc32c(data))

    @property
    def seed(self) -> int:
        """What the checks of this file's frames start from."""
        return int(_CHECK.unpack(self.encode()[-_CHECK.size :])[0])


def decode_snapshot_header(data: bytes) -> SnapshotHeader:
    """Return the header at the beginning of a snapshot's bytes.

    Raises:
        FrameError: there is none, or it is broken, or of an unknown format.

    """
    if len(data) < HEADER_BYTES:
        raise FrameError(f"the file ends at byte {len(data)}, inside its header")
    magic, version, cluster, node, incarnation, index, term = _HEADER.unpack_from(data)
    if crc32c(data[: _HEADER.size]) != _CHECK.unpack_from(data, _HEADER.size)[0] or magic != _MAGIC:
        raise FrameError("the header's check does not match its bytes")
    if version != FORMAT:
        raise FrameError(f"the snapshot has format {version}, this program reads format {FORMAT}")
    return SnapshotHeader(Identity(cluster.hex(), node, incarnation), index, term)


@attrs.frozen
class SnapshotFrame:
    """A frame's header. Its body is the `length` bytes that follow."""

    kind: int
    number: int
    length: int
    body_check: int

    def check(self, body: bytes) -> None:
        """Compare the body with what was written.

        Raises:
            FrameError: it is cut short, or not as it was written.

        """
        if len(body) != self.length:
            raise FrameError(f"the file ends {self.length - len(body)} bytes too early")
        if crc32c(body) != self.body_check:
            raise FrameError(f"the bytes of frame {self.number} are not as they were written")


def encode_chunk(number: int, data: bytes, seed: int, offset: int) -> bytes:
    """Return the frame of a chunk, for byte `offset` of the file with this seed."""
    return _encode(FrameKind.CHUNK, number, data, seed, offset)


def encode_end(chunks: int, total_bytes: int, seed: int, offset: int) -> bytes:
    """Return the last frame of a file."""
    return _encode(FrameKind.END, chunks, _TOTAL.pack(total_bytes), seed, offset)


def decode_total(body: bytes) -> int:
    """Return how many bytes all chunks have, out of the body of the last frame."""
    return int(_TOTAL.unpack(body)[0])


def decode_frame(data: bytes, seed: int, offset: int) -> SnapshotFrame:
    """Return the frame header whose bytes, read at `offset`, are `data`.

    Raises:
        FrameError: there is no frame there.

    """
    if len(data) != FRAME_HEADER_BYTES:
        raise FrameError("the file ends where a frame is due")
    if crc32c(data[_CHECK.size :], check_start(seed, offset)) != _CHECK.unpack_from(data)[0]:
        raise FrameError("the header of a frame is not as it was written")
    body_check, length, number, kind = _FRAME.unpack_from(data, _CHECK.size)
    if kind not in {FrameKind.CHUNK, FrameKind.END} or (kind == FrameKind.END and length != _TOTAL.size):
        raise FrameError(f"unknown kind of frame {kind} with {length} bytes")
    return SnapshotFrame(kind, number, length, body_check)


def _encode(kind: FrameKind, number: int, data: bytes, seed: int, offset: int) -> bytes:
    checked = _FRAME.pack(crc32c(data), len(data), number, kind)
    return b"".join((_CHECK.pack(crc32c(checked, check_start(seed, offset))), checked, data))
