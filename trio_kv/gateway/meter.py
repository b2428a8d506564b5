"""How many requests there are at the gateway, and how long they take, over the last second.

What is noted of a run is two numbers and a branch: who wants percentiles pays for them when he asks. A latency falls
into one of some hundred classes, each an eighth wider than the one before, so that what is told is right to 12 %.
"""

from collections import deque

import attrs

WINDOW_S = 1.0
"""Figures are over what ended in so much time before they are taken, and over no less."""
FINE_BITS = 3
"""Classes of latencies: 2 to the power of this many for each doubling."""


@attrs.frozen
class Rates:
    """What there was in the last second."""

    window_s: float
    """Over how long it was really measured; 0: nothing is known yet."""
    writes_per_s: float = 0.0
    reads_per_s: float = 0.0
    failed_per_s: float = 0.0
    """Requests that ended in an error of the store, and are not among the others."""
    write_p50_ms: float | None = None
    """None without any."""
    write_p99_ms: float | None = None
    read_p50_ms: float | None = None
    read_p99_ms: float | None = None


@attrs.define
class _Slice:
    """What was noted between two looks."""

    began_at: float
    writes: dict[int, int] = attrs.field(factory=dict)
    """How many requests fell into each class of latency."""
    reads: dict[int, int] = attrs.field(factory=dict)
    failed: int = 0


class Meter:
    """Counts requests. One who looks (`look`) is enough: each look ends a slice of the window for all."""

    def __init__(self) -> None:
        """Have counted nothing; see the class."""
        self._slices: deque[_Slice] = deque()
        self._now: _Slice | None = None

    def note_writes(self, count: int, latency_s: float) -> None:
        """Note writes of a run that have their answers."""
        if self._now is not None:
            counts, place = self._now.writes, _class_of(latency_s)
            counts[place] = counts.get(place, 0) + count

    def note_reads(self, count: int, latency_s: float) -> None:
        """Note reads of a run that have their answers."""
        if self._now is not None:
            counts, place = self._now.reads, _class_of(latency_s)
            counts[place] = counts.get(place, 0) + count

    def note_failed(self, count: int) -> None:
        """Note requests that ended in an error of the store."""
        if self._now is not None:
            self._now.failed += count

    def look(self, now: float) -> Rates:
        """Return what there was in the last second; the first look begins to count.

        Args:
            now: a clock that never jumps, in seconds.

        """
        slices = self._slices
        if self._now is not None:
            slices.append(self._now)
        self._now = _Slice(now)
        # The newest ones that make up the window: it begins where its oldest slice does.
        while len(slices) > 1 and slices[1].began_at <= now - WINDOW_S:
            slices.popleft()
        if not slices or now <= slices[0].began_at:
            return Rates(0.0)
        window_s = now - slices[0].began_at
        writes, reads = _sum([each.writes for each in slices]), _sum([each.reads for each in slices])
        return Rates(
            round(window_s, 3),
            round(sum(writes.values()) / window_s, 1),
            round(sum(reads.values()) / window_s, 1),
            round(sum(each.failed for each in slices) / window_s, 1),
            _percentile_ms(writes, 0.5),
            _percentile_ms(writes, 0.99),
            _percentile_ms(reads, 0.5),
            _percentile_ms(reads, 0.99),
        )


def _class_of(latency_s: float) -> int:
    """Return the class of a latency: how many bits its microseconds have, and the first few of these."""
    us = int(latency_s * 1e6) + (1 << FINE_BITS)
    shift = us.bit_length() - 1 - FINE_BITS
    return (shift << FINE_BITS) + (us >> shift)


def _middle_ms(place: int) -> float:
    """Return the latency in the middle of a class."""
    shift = (place >> FINE_BITS) - 1
    first = place - (shift << FINE_BITS)
    return max(0.0, ((first + 0.5) * (1 << shift) - (1 << FINE_BITS)) / 1000)


def _sum(slices: list[dict[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for counts in slices:
        for place, count in counts.items():
            total[place] = total.get(place, 0) + count
    return total


def _percentile_ms(counts: dict[int, int], share: float) -> float | None:
    """Return the latency that this share of the requests did not exceed."""
    left = share * sum(counts.values())
    for place in sorted(counts):
        left -= counts[place]
        if left <= 0:
            return float(f"{_middle_ms(place):.3g}")
    return None
