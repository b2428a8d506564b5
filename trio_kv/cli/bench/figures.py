"""What a load came to."""

from collections import Counter
from typing import Any

import attrs

from trio_kv.cli.bench.histogram import Histogram, merge


@attrs.define
class Tally:
    """Of one operation: latencies of the requests that were answered, and errors by code.

    Attributes:
        done: answered while the load lasted. What was answered after its end has a latency, and counts no more.

    """

    latencies: Histogram = attrs.field(factory=Histogram)
    done: int = 0
    missing: int = 0
    errors: Counter[str] = attrs.field(factory=Counter)

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Return the members of the report."""
        return {
            "count": self.done,
            "per_second": round(self.done / seconds, 1) if seconds else 0.0,
            **self.latencies.to_json(),
            "missing": self.missing,
            "errors": dict(sorted(self.errors.items())),
        }


@attrs.define
class Figures:
    """Of one load, or a part of it.

    Attributes:
        seconds: how long it lasted.
        cpu_seconds: processor time that the load itself took.
        longest_gap_ns: the longest time in which nothing was answered.
        not_sent: batches that were due, at a fixed rate, and were not sent before the end.
        lost: connections that ended, by reason; also those that could not be opened again.

    """

    sets: Tally = attrs.field(factory=Tally)
    gets: Tally = attrs.field(factory=Tally)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    longest_gap_ns: int = 0
    not_sent: int = 0
    lost: Counter[str] = attrs.field(factory=Counter)

    @property
    def answered(self) -> int:
        """How many requests were answered, until now."""
        return self.sets.latencies.count + self.gets.latencies.count

    def freeze(self, seconds: float, cpu_seconds: float) -> None:
        """End the time that counts."""
        self.seconds, self.cpu_seconds = seconds, cpu_seconds
        self.sets.done, self.gets.done = self.sets.latencies.count, self.gets.latencies.count

    @property
    def latencies(self) -> Histogram:
        """Those of all requests together."""
        return merge(self.sets.latencies, self.gets.latencies)

    @property
    def errors(self) -> Counter[str]:
        """Those of all requests together."""
        return self.sets.errors + self.gets.errors

    @property
    def tallies(self) -> dict[str, Tally]:
        """The operations that were asked for, by name."""
        both = {"set": self.sets, "get": self.gets}
        return {name: tally for name, tally in both.items() if tally.latencies.count or tally.errors}
