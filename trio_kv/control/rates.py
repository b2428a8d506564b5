"""How many requests a client door answers, and how long they take, over the last second.

The door counts them anyhow, for the metrics; here two looks at its counts are compared.
"""

from collections import deque
from itertools import takewhile

import attrs

from trio_kv.control.views import RequestCounts
from trio_kv.kv.operations import OPERATIONS
from trio_kv.kv.operations.operation import Query, WriteOperation, name_of
from trio_kv.meter.histogram import Histogram

WINDOW_S = 1.0
"""Figures are over what ended in so much time before they are taken, and over no less."""

READS = frozenset(name_of(kind) for kind in OPERATIONS if issubclass(kind, Query))
WRITES = frozenset(name_of(kind) for kind in OPERATIONS if issubclass(kind, WriteOperation))
"""What begins or ends a watch is neither."""

NO_FAILURES = frozenset({"missing", "conflict"})
"""Answers that tell how a key is. All others but `ok` are errors of the protocol."""


@attrs.frozen
class Rates:
    """What there was in the last second."""

    window_s: float = 0.0
    """Over how long it was really measured; 0: nothing is known yet."""
    writes_per_s: float = 0.0
    reads_per_s: float = 0.0
    failed_per_s: float = 0.0
    """Requests that ended in an error, which are among the others."""
    write_p50_ms: float | None = None
    """None without any."""
    write_p99_ms: float | None = None
    read_p50_ms: float | None = None
    read_p99_ms: float | None = None


@attrs.frozen
class _Look:
    at: float
    writes: Histogram
    reads: Histogram
    failed: int


class RateWindow:
    """Compares looks at what a door has counted. The first look begins to compare.

    Args:
        counts: what the door counts.

    """

    def __init__(self, counts: RequestCounts) -> None:
        """Have looked never; see the class."""
        self._counts = counts
        self._looks: deque[_Look] = deque()

    def look(self, now: float) -> Rates:
        """Return what there was in the last second.

        Args:
            now: a clock that never jumps, in seconds.

        """
        looks, new = self._looks, self._look(now)
        # The newest one of those that are old enough begins the window.
        for _ in list(takewhile(lambda look: look.at <= now - WINDOW_S, looks))[1:]:
            looks.popleft()
        looks.append(new)
        old = looks[0]
        window_s = now - old.at
        if window_s <= 0.0:
            return Rates()
        writes, reads = new.writes.since(old.writes), new.reads.since(old.reads)
        return Rates(
            round(window_s, 3),
            round(writes.count / window_s, 1),
            round(reads.count / window_s, 1),
            round((new.failed - old.failed) / window_s, 1),
            _quantile_ms(writes, 0.5),
            _quantile_ms(writes, 0.99),
            _quantile_ms(reads, 0.5),
            _quantile_ms(reads, 0.99),
        )

    def _look(self, now: float) -> _Look:
        writes, reads = Histogram(), Histogram()
        for name, durations in self._counts.durations.items():
            if name in READS:
                reads.add(durations)
            elif name in WRITES:
                writes.add(durations)
        failed = sum(count for code, count in self._counts.errors.items() if code not in NO_FAILURES)
        return _Look(now, writes, reads, failed)


def _quantile_ms(durations: Histogram, share: float) -> float | None:
    value_s = durations.quantile(share)
    return None if value_s is None else float(f"{1000 * value_s:.3g}")
