"""The lines of a chunk into requests, and into replies to those that are none; a pause's worth at a time.

A line that is no request is worth a hundred of it in replies, and costs more than one that is. So not all lines of a
chunk are decoded at once: some, until their work is enough for now; or a block, until the replies to bad ones are many.
"""

from collections.abc import Sequence
from typing import Any

from trio_kv.proxy.framing import TOO_LARGE, Line
from trio_kv.wire.operations import BadRequestError, Request
from trio_kv.wire.refusals import EXPLAINED_BYTES_MAX
from trio_kv.wire.replies import encode_error
from trio_kv.wire.requests import parse_line

WORK_MAX = 256
"""Units of work, a good line each, before other tasks get their turn."""
BAD_LINE_WORK = 16
"""What it costs to explain what is wrong with a line, however short it is."""
BAD_BYTES_A_UNIT = 32
"""How much of a bad line is a unit of work, as far as it is explained."""


class LineDecoder:
    """The lines of a chunk, of which the first were decoded.

    Args:
        line_bytes_max: how long a line may be.
        error_bytes_max: a block of lines ends when the replies to those that are no requests are more.

    """

    def __init__(self, line_bytes_max: int, error_bytes_max: int) -> None:
        """Begin without lines; see the class."""
        self.lines: Sequence[Line] = ()
        """All of the chunk, until it is forgotten."""
        self.is_in_block = False
        """Whether the block that was begun has not come to its end."""
        self._line_bytes_max = line_bytes_max
        self._error_bytes_max = error_bytes_max
        self._taken = 0
        self._error_bytes = 0
        """Of the replies to lines that are no requests, since the block began."""

    @property
    def has_more(self) -> bool:
        """Whether there are lines that are not decoded."""
        return self._taken < len(self.lines)

    def take(self, lines: Sequence[Line]) -> None:
        """Take the lines of a chunk."""
        self.lines, self._taken = lines, 0

    def forget(self) -> None:
        """Keep no lines."""
        self.lines, self._taken = (), 0

    def begin_block(self) -> None:
        """Begin with lines whose replies may be kept together."""
        self.is_in_block, self._error_bytes = True, 0

    def go_on(self, items: list[Any], work: int) -> int:
        """Decode the next lines of the block.

        Args:
            items: where the requests go, and the replies to lines that are none.
            work: the units of work that were done since others had their turn.

        Returns:
            the same, with those that were done now.

        """
        before = len(items)
        # Each line is a unit of work at least.
        for line in self.lines[self._taken : self._taken + WORK_MAX]:
            work += 1
            item = self.decode_line(line)
            items.append(item)
            if type(item) is bytes:
                self._error_bytes += len(item)
                work += BAD_LINE_WORK
                if line is not TOO_LARGE:
                    work += min(len(line), EXPLAINED_BYTES_MAX) // BAD_BYTES_A_UNIT
                if self._error_bytes > self._error_bytes_max:
                    break
            if work >= WORK_MAX:
                break
        self._taken += len(items) - before
        self.is_in_block = self.has_more and self._error_bytes <= self._error_bytes_max
        return work

    def decode_line(self, line: Line) -> Request | bytes:
        """Return a line's request, or the reply to a line that is none."""
        if line is TOO_LARGE:
            message = f"a line has at most {self._line_bytes_max} bytes; the rest of it is skipped"
            return encode_error("too_large", message)
        try:
            return parse_line(line)
        except BadRequestError as error:
            return encode_refusal(error)


def encode_refusal(error: BadRequestError) -> bytes:
    """Return the reply to a line that is no request."""
    return encode_error(error.code, error.message, error.key, error.id)
