"""The frames of a link between processes: several messages at a time, each frame with a check of its own.

::

    frame   = length u32 | body check u32 | check u32 | payload
    payload = msgpack [message, ...]

Numbers are little-endian. The body check is CRC-32C of the payload, the check that of the two numbers before it.
TCP has a check of its own, which lets one in some ten million wrong packets through; and an entry that came wrong would
be written, acknowledged and applied. **The length has its own check**, as in the log: by a wrong bit in it the next
megabytes would be waited for as a part of this frame. Bytes would come all the while, and nothing that they say.
"""

import struct
from collections.abc import Sequence
from typing import Annotated, Any, Final

from crc32c import crc32c
from msgspec import Meta

from trio_kv.wire.packed import decoder, encode
from trio_kv.wire.peers import PeerError

_LENGTH: Final = struct.Struct("<II")
"""length of the payload, its check."""
_CHECK: Final = struct.Struct("<I")
HEADER_BYTES: Final = _LENGTH.size + _CHECK.size

MESSAGES_MAX: Final = 1 << 16
"""Messages in one frame: as empty ones they would take many times their bytes in memory."""

_decode: Final = decoder(Annotated[list[bytes], Meta(min_length=1, max_length=MESSAGES_MAX)])


def encode_frame(messages: Sequence[bytes]) -> bytes:
    """Return the frame of some messages: at least one, at most `MESSAGES_MAX`."""
    assert 0 < len(messages) <= MESSAGES_MAX, f"{len(messages)} messages in a frame"
    payload = encode(messages)
    return encode_header(len(payload), crc32c(payload)) + payload


def encode_header(length: int, body_check: int) -> bytes:
    """Return the header of a frame whose payload has this length and this check."""
    checked = _LENGTH.pack(length, body_check)
    return checked + _CHECK.pack(crc32c(checked))


class FrameReader:
    """Cuts what comes over a link into frames. It does no I/O: `feed` it, then call `next` until that has no more.

    So it never holds more than one frame and what was fed last. Once a PeerError was raised, each later call raises it
    again: there is no telling where the next frame begins.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        """Refuse payloads of more bytes."""
        self.frame_bytes_max = frame_bytes_max
        self._came = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take what came."""
        self._came += data

    def next(self) -> list[bytes] | None:
        """Return the messages of the next frame; None as long as it has not all come.

        Raises:
            PeerError: what came is no frame; one that is too long is refused as soon as its length is known.

        """
        came = self._came
        if len(came) < HEADER_BYTES:
            return None
        length, check = _LENGTH.unpack_from(came)
        if not 0 < length <= self.frame_bytes_max:
            raise PeerError(f"a frame of {length} bytes: right would be 1 to {self.frame_bytes_max}")
        if crc32c(came[: _LENGTH.size]) != _CHECK.unpack_from(came, _LENGTH.size)[0]:
            raise PeerError("the check of a frame's header does not match it")
        end = HEADER_BYTES + length
        if len(came) < end:
            return None
        with memoryview(came)[HEADER_BYTES:end] as payload:
            messages = _read_payload(payload, check)
        del came[:end]
        return messages


def _read_payload(payload: memoryview, check: int) -> list[bytes]:
    if crc32c(payload) != check:
        raise PeerError(f"the check of a frame of {len(payload)} bytes does not match them")
    try:
        messages: Any = _decode(payload)
    except ValueError as error:
        raise PeerError(f"malformed frame: {error}") from error
    found: list[bytes] = messages
    return found
