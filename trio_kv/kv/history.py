"""The latest changes, in the order of their revisions: what watches are served from.

A history knows the changes of all revisions in a range (after, upto], and nothing of those before it. It is bounded by
revisions and by bytes; the oldest go first. It is no part of the state: a machine that was made of a snapshot begins
with an empty one.

Changes lie in blocks, so that to note one costs its place in a list, and to forget costs nothing a change. The changes
themselves are shared by the machines of a process.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import attrs

from trio_kv.kv.operations.operation import Change

REVISIONS_MAX: Final = 65_536
"""A history reaches back so far, if the bytes allow it."""
BYTES_MAX: Final = 64 << 20
CHANGE_BYTES: Final = 128
"""What a change weighs besides its texts."""
BLOCKS: Final = 64
"""A history is forgotten in pieces of such a part of it."""

_revision_of = attrgetter("revision")


@attrs.define(eq=False)
class _Block:
    """The changes of the revisions in (after, upto]."""

    after: int
    upto: int
    changes: list[Change] = attrs.field(factory=list)
    size_bytes: int = 0


class History:
    """What changed in (after, upto].

    Invariant: the ranges of the blocks join, and the changes in each are in the order of their revisions.

    Args:
        after: it begins behind this revision.
        revisions_max: how many of the latest revisions it reaches back.
        bytes_max: what its changes may weigh; the last block is kept in any case.

    """

    __slots__ = ("_blocks", "_bytes_max", "_revisions_max", "_size_bytes")

    def __init__(self, after: int, *, revisions_max: int = REVISIONS_MAX, bytes_max: int = BYTES_MAX) -> None:
        """Know no change; see the class."""
        self._revisions_max = revisions_max
        self._bytes_max = bytes_max
        self._blocks = [_Block(after, after)]
        self._size_bytes = 0

    @property
    def after(self) -> int:
        """The revision behind which it begins."""
        return self._blocks[0].after

    @property
    def upto(self) -> int:
        """The last revision that it knows of, whether or not anything changed there."""
        return self._blocks[-1].upto

    def note(self, upto: int, changes: Sequence[Change], size_bytes: int) -> None:
        """Add what changed behind `self.upto`, up to this revision.

        Args:
            upto: the last revision of which all changes are there.
            changes: in the order of their revisions; those of one revision are never told in two calls.
            size_bytes: of their texts, about.

        """
        block = self._blocks[-1]
        assert upto >= block.upto, f"a history that goes to {block.upto} is told of {upto}"
        is_long = block.upto - block.after >= self._revisions_max // BLOCKS
        if (is_long and block.upto > block.after) or block.size_bytes >= self._bytes_max // BLOCKS:
            block = _Block(block.upto, block.upto)
            self._blocks.append(block)
            self._forget()
        block.upto = upto
        block.changes += changes
        weight = size_bytes + CHANGE_BYTES * len(changes)
        block.size_bytes += weight
        self._size_bytes += weight

    def read(self, after: int, changes_max: int, bytes_max: float = math.inf) -> tuple[int, list[Change]]:
        """Return the next changes behind a revision, and the revision up to which these are all.

        They are about as many as was asked for, or weigh about as much, and never a part of a revision. At the end of
        the history that revision is `upto`, or `after` if that is higher.

        Raises:
            AssertionError: the history begins behind `after`.

        """
        blocks = self._blocks
        assert after >= blocks[0].after, f"{after} is before {blocks[0].after}"
        if after >= self.upto:
            return after, []
        place = bisect_right(blocks, after, key=_after_of) - 1
        found: list[Change] = []
        upto, size_bytes = after, 0
        while place < len(blocks) and len(found) < changes_max and size_bytes < bytes_max:
            block = blocks[place]
            begin = bisect_right(block.changes, after, key=_revision_of) if block.after < after else 0
            found += block.changes[begin:]
            upto = block.upto
            size_bytes += block.size_bytes
            place += 1
        if len(found) > changes_max:
            upto = found[changes_max - 1].revision
            del found[bisect_right(found, upto, key=_revision_of) :]
        return upto, found

    def _forget(self) -> None:
        """Forget the oldest blocks, as long as enough is left without them."""
        blocks = self._blocks
        while len(blocks) > 1 and (
            self.upto - blocks[0].upto >= self._revisions_max or self._size_bytes > self._bytes_max
        ):
            self._size_bytes -= blocks.pop(0).size_bytes


_after_of = attrgetter("after")
