r"""Bytes into lines, without any input or output.

A line ends with `\n` or `\r\n`; at the end of input a last line needs no end. Lines of nothing but white
space are blank and dropped. A line over the limit is told once, as soon as it is over, by `TOO_LARGE` in
its place; the rest of it is skipped and not kept, so no sender makes the buffer larger than the limit.

A chunk is searched and split once, whatever it holds, and a half line grows in place: a line costs the
same in one chunk as in a million of one byte each. In what pieces the bytes came never shows.
"""

import enum
from typing import Final


class Marker(enum.Enum):
    """What stands in the place of a line that cannot be given."""

    TOO_LARGE = "too large"


TOO_LARGE: Final = Marker.TOO_LARGE
Line = bytes | Marker


class LineBuffer:
    """The bytes of one connection that do not make a line yet.

    Invariant: `half_bytes` is at most `line_bytes_max`, plus one for a carriage return that may turn out
    to belong to the end of the line.

    Args:
        line_bytes_max: the longest line, without its end.

    """

    __slots__ = ("_half", "_is_skipping", "_line_bytes_max")

    def __init__(self, line_bytes_max: int) -> None:
        """Begin with an empty buffer; see the class."""
        assert line_bytes_max >= 1, line_bytes_max
        self._line_bytes_max = line_bytes_max
        self._half = bytearray()
        self._is_skipping = False

    @property
    def half_bytes(self) -> int:
        """How many bytes of an incomplete line are held."""
        return len(self._half)

    @property
    def is_between_lines(self) -> bool:
        """Whether the next byte begins a line."""
        return not self._half and not self._is_skipping

    def feed(self, chunk: bytes) -> list[Line]:
        """Take the next bytes of the connection; return the lines that they complete, in order."""
        if self._is_skipping:
            end = chunk.find(b"\n")
            if end < 0:
                return []
            self._is_skipping = False
            chunk = chunk[end + 1 :]
        pieces = chunk.split(b"\n")
        rest = pieces.pop()
        lines: list[Line] = []
        if pieces:
            if self._half:
                pieces[0] = b"".join((self._half, pieces[0]))
                self._half = bytearray()
            lines = self._finish(pieces)
        if rest:
            self._hold(rest, lines)
        return lines

    def end(self) -> list[Line]:
        """Take the end of input; return the last line if it had no end."""
        last, self._half, self._is_skipping = bytes(self._half), bytearray(), False
        return self._finish([last])

    def drop(self) -> None:
        """Forget the half line, and skip what is still to come of it."""
        self._half = bytearray()
        self._is_skipping = True

    def _finish(self, pieces: list[bytes]) -> list[Line]:
        lines: list[Line] = []
        for piece in pieces:
            line = piece[:-1] if piece.endswith(b"\r") else piece
            if len(line) > self._line_bytes_max:
                lines.append(TOO_LARGE)
            elif line and not line.isspace():
                lines.append(line)
        return lines

    def _hold(self, rest: bytes, lines: list[Line]) -> None:
        size = len(self._half) + len(rest)
        is_at_end = size == self._line_bytes_max + 1 and rest.endswith(b"\r")
        if size > self._line_bytes_max and not is_at_end:
            # Told now and not at its end, which may never come: nothing more of it is kept.
            lines.append(TOO_LARGE)
            self.drop()
        else:
            self._half += rest
