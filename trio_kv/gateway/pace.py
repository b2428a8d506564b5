"""The pace of rounds in which watches are told what has come.

After a round of many, several times as long is left to others: what is told to a thousand goes out in fewer and larger
pieces, and who writes keeps most of the processor. But nobody rests until what was not told yet falls out of the
window: watches would be lost that have done nothing wrong.
"""

from typing import Final

REST_SHARE: Final = 5.0
"""After a round there is none for so many times as long as it took,"""
REST_MAX_S: Final = 0.5
"""and so long at most."""
UNTOLD_SHARE: Final = 4
"""A part of the window of which so many fill it is told at once."""


class Pace:
    """When the next round is due.

    Args:
        revisions_max: how many revisions the window has.
        bytes_max: how many bytes.

    """

    __slots__ = ("_bytes", "_bytes_max", "_revisions", "_revisions_max", "due_at")

    def __init__(self, revisions_max: int, bytes_max: int) -> None:
        """Have nothing to tell; see the class."""
        self._revisions_max = revisions_max // UNTOLD_SHARE
        self._bytes_max = bytes_max // UNTOLD_SHARE
        self._revisions = self._bytes = 0
        self.due_at = 0.0
        """When the next round may begin."""

    @property
    def is_pressing(self) -> bool:
        """Whether so much has come that nobody may rest."""
        return self.due_at == 0.0

    def came(self, revisions: int, size_bytes: int) -> None:
        """Note that there is so much more to tell."""
        self._revisions += revisions
        self._bytes += size_bytes
        if self._revisions >= self._revisions_max or self._bytes >= self._bytes_max:
            self.due_at = 0.0

    def told(self) -> None:
        """Note that a round begins, in which all that has come is told."""
        self._revisions = self._bytes = 0

    def rest(self, now: float, took_s: float) -> None:
        """Note that a round is over, and how long it took, without others' turns."""
        self.due_at = now + min(REST_SHARE * took_s, REST_MAX_S)
        self.came(0, 0)
