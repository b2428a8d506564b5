"""The half lines of all connections together, and who has to go when they are too many.

One client may hold a line open up to the limit of a line; a thousand may not all do so. The books are
kept here, in the order in which the half lines began: the oldest is the first to go, because an honest
client ends a line soon after it began it.
"""

from typing import Protocol


class Holder(Protocol):
    """A connection that holds a half line."""

    def evict(self) -> None:
        """Drop the half line, say so and close."""
        ...


class HalfLines:
    """How many bytes of half lines are held, by whom, oldest first.

    Invariant: after every method `total_bytes` is the sum over the holders and at most `bytes_max`.

    Args:
        bytes_max: the limit over all holders; beyond it the oldest are evicted.

    """

    def __init__(self, bytes_max: int) -> None:
        """Begin with no holders; see the class."""
        self.bytes_max = bytes_max
        self.total_bytes = 0
        self._sizes: dict[Holder, int] = {}

    def note(self, holder: Holder, size: int, *, is_new: bool) -> None:
        """Write down that a holder's half line has `size` bytes now; `is_new`: it is another than before."""
        if is_new or not size:
            self.forget(holder)
        if size:
            self.total_bytes += size - self._sizes.get(holder, 0)
            self._sizes[holder] = size
        while self.total_bytes > self.bytes_max:
            oldest = next(iter(self._sizes))
            self.forget(oldest)
            oldest.evict()

    def forget(self, holder: Holder) -> None:
        """Write down that a holder has no half line any more."""
        self.total_bytes -= self._sizes.pop(holder, 0)
