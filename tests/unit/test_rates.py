"""Claims about the rates in a frame: what is counted, over which time, and how right a quantile is."""

from collections import Counter
from random import Random

import attrs
import pytest

from trio_kv.control.rates import Rates, RateWindow
from trio_kv.meter.histogram import Histogram


@attrs.define
class Counts:
    """Stands for what a client door has counted."""

    durations: dict[str, Histogram] = attrs.field(factory=dict)
    errors: Counter[str] = attrs.field(factory=Counter)

    def note(self, operation: str, count: int, duration_s: float) -> None:
        self.durations.setdefault(operation, Histogram()).note(duration_s, count)


def test_nothing_is_known_before_somebody_has_looked() -> None:
    """The first look begins to compare: figures are over what came since."""
    counts = Counts()
    window = RateWindow(counts)
    counts.note("set", 5, 0.001)
    assert window.look(10.0) == Rates()
    counts.note("set", 2, 0.001)
    counts.note("incr", 1, 0.001)
    counts.note("watch", 9, 0.001)
    counts.errors.update(timeout=1, missing=7, conflict=2)
    rates = window.look(10.5)
    assert (rates.window_s, rates.writes_per_s, rates.reads_per_s, rates.failed_per_s) == (0.5, 6.0, 0.0, 2.0)
    assert (rates.read_p50_ms, rates.read_p99_ms) == (None, None)


def test_figures_are_over_the_last_second() -> None:
    """However often somebody looks: what ended before is forgotten, what ended since is not."""
    counts = Counts()
    window = RateWindow(counts)
    rates = window.look(0.0)
    for tenth in range(1, 31):
        counts.note("scan" if tenth % 2 else "get", 10 if tenth <= 15 else 20, 0.002)
        rates = window.look(tenth / 10)
    assert (rates.window_s, rates.reads_per_s) == (1.0, 200.0)
    window.look(33.0)
    rates = window.look(34.0)
    assert (rates.window_s, rates.reads_per_s, rates.read_p99_ms) == (1.0, 0.0, None)


@pytest.mark.parametrize("scale_s", [1e-4, 1e-2, 1.0])
def test_a_quantile_is_right_to_a_factor_of_two(scale_s: float) -> None:
    """From a tenth of a millisecond to some seconds, which is what the buckets are for."""
    random, durations = Random(7), Histogram()
    durations_s = [scale_s * (1.0 + random.random()) for _ in range(2000)]
    for duration_s in durations_s:
        durations.note(duration_s)
    durations_s.sort()
    for share in (0.01, 0.5, 0.99):
        told_s, true_s = durations.quantile(share), durations_s[int(share * len(durations_s)) - 1]
        assert told_s is not None
        assert true_s / 2 <= told_s <= true_s * 2


def test_a_quantile_behind_the_last_bound_is_that_bound() -> None:
    """Nothing is made up: more than that was not measured."""
    durations = Histogram()
    assert durations.quantile(0.5) is None
    durations.note(1e6)
    assert durations.quantile(0.5) == durations.bounds[-1]
