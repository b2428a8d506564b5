"""Latencies, counted in buckets: constant memory, however many there are, and a known error.

As in HdrHistogram, the buckets of one power of two have the same width, and there are 128 of them: what a percentile
says is off by at most `RELATIVE_ERROR` of itself. Below 256 ns a bucket holds one nanosecond.
"""

from collections.abc import Iterator

import attrs

SUB_BUCKETS_BITS = 7
EXACT_BITS = SUB_BUCKETS_BITS + 1
RELATIVE_ERROR = 1 / (1 << EXACT_BITS)
"""Half a bucket's width, as a share of its lowest value: 0.4 %."""
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def bucket_of(value_ns: int) -> int:
    """Return the number of the bucket that counts a value."""
    shift = value_ns.bit_length() - EXACT_BITS
    return value_ns if shift <= 0 else (shift << SUB_BUCKETS_BITS) + (value_ns >> shift)


def bounds_of(bucket: int) -> tuple[int, int]:
    """Return the lowest value of a bucket, and the lowest that is above it."""
    shift = max(0, (bucket >> SUB_BUCKETS_BITS) - 1)
    low = (bucket - (shift << SUB_BUCKETS_BITS)) << shift
    return low, low + (1 << shift)


BUCKETS = bucket_of((1 << 63) - 1) + 1
"""Enough for 292 years."""


@attrs.frozen
class Histogram:
    """Values in nanoseconds, how often each came."""

    buckets: list[int] = attrs.field(factory=lambda: [0] * BUCKETS)

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.buckets)

    def record(self, value_ns: int, times: int = 1) -> None:
        """Count a value, at least 0, so many times."""
        self.buckets[bucket_of(value_ns)] += times

    def percentile_ms(self, percent: float) -> float:
        """Return the value that so many per cent of all don't exceed, in milliseconds; 0 if there are none.

        With 100 it is the largest value.
        """
        wanted, seen = percent / 100 * self.count, 0
        for bucket, times in enumerate(self.buckets):
            seen += times
            if times and seen >= wanted:
                low, above = bounds_of(bucket)
                return (low + above - 1) / 2e6
        return 0.0

    def to_json(self) -> dict[str, float]:
        """Return the percentiles that are reported, and the largest value, in milliseconds."""
        percentiles = {f"p{percent:g}_ms": round(self.percentile_ms(percent), 4) for percent in PERCENTILES}
        return {**percentiles, "max_ms": round(self.percentile_ms(100.0), 4)}

    def spans(self) -> Iterator[tuple[float, float, int]]:
        """Yield steps of 1, 2, 5, 10, … as (above ms, up to ms, count), from the first that is not empty to the last.

        A bucket counts where its lowest value lies.
        """
        edges = [0, *(step * 10**power for power in range(3, 19) for step in (1, 2, 5))]
        counts = [0] * len(edges)
        place = 0
        for bucket, times in enumerate(self.buckets):
            low, _ = bounds_of(bucket)
            while place + 2 < len(edges) and low >= edges[place + 1]:
                place += 1
            counts[place] += times
        filled = [number for number, times in enumerate(counts) if times]
        for number in range(filled[0], filled[-1] + 1) if filled else ():
            yield edges[number] / 1e6, edges[number + 1] / 1e6, counts[number]


def merge(*histograms: Histogram) -> Histogram:
    """Return one with the values of all."""
    return Histogram([sum(counts) for counts in zip(*(each.buckets for each in histograms), strict=True)])
