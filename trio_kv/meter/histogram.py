"""How long something took, how often: counts in fixed buckets."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

DURATIONS_S: Final = tuple(round(0.0001 * 2**power, 4) for power in range(17))
"""Upper bounds of buckets, from 0.1 ms to 6.6 s, each twice the one before: a sync of a good disk takes as long as
the first ones, and a request that waits for an election as long as the last."""


class Histogram:
    """Durations by bucket, and their sum. The unit of what is noted is a run of equal ones, never one of them.

    One thread notes; any thread may read: what it sees lacks at most what is noted just then.

    Args:
        bounds: the buckets' upper bounds, rising. Behind the last one is a bucket without a bound.

    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = DURATIONS_S) -> None:
        """Have seen nothing yet; see the class."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """How many were noted in each bucket alone."""
        self.total = 0.0
        """The sum of all that was noted."""

    def note(self, value: float, count: int = 1) -> None:
        """Note that something took so long, so many times."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    @property
    def count(self) -> int:
        """How many were noted."""
        return sum(self.counts)

    def add(self, other: "Histogram") -> None:
        """Note all that another one, of the same buckets, has noted."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def since(self, earlier: "Histogram") -> "Histogram":
        """Return what was noted since this one was as it was `earlier`."""
        new = Histogram(self.bounds)
        new.counts = [now - then for now, then in zip(self.counts, earlier.counts, strict=True)]
        new.total = self.total - earlier.total
        return new

    def quantile(self, share: float) -> float | None:
        """Return what this share of the values did not exceed; None if there are none.

        It is right to its bucket, in which values count as evenly spread; behind the last bound it is that bound.
        """
        rank, below, lower = share * self.count, 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            below, lower = below + count, bound
        return lower if self.count else None

    def copy(self) -> "Histogram":
        """Return what is noted now, for who reads it in several steps."""
        twin = Histogram(self.bounds)
        twin.counts, twin.total = self.counts.copy(), self.total
        return twin

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (bound, how many were noted at or below it) of each bucket; the last bound is infinite."""
        return list(zip((*self.bounds, float("inf")), accumulate(self.counts), strict=True))
