"""Claims about the gateway's figures: what is counted, over which time, and how right a percentile is."""

from random import Random

import pytest

from trio_kv.gateway.meter import Meter, Rates


def test_nothing_is_known_before_somebody_has_looked() -> None:
    """The first look begins to count; figures are over what came since."""
    meter = Meter()
    meter.note_writes(5, 0.001)
    assert meter.look(10.0) == Rates(0.0)
    meter.note_writes(3, 0.001)
    meter.note_failed(1)
    rates = meter.look(10.5)
    assert (rates.window_s, rates.writes_per_s, rates.reads_per_s, rates.failed_per_s) == (0.5, 6.0, 0.0, 2.0)
    assert (rates.read_p50_ms, rates.read_p99_ms) == (None, None)


def test_figures_are_over_the_last_second() -> None:
    """However often somebody looks: what ended before is forgotten, what ended since is not."""
    meter = Meter()
    rates = meter.look(0.0)
    for tenth in range(1, 31):
        meter.note_reads(10 if tenth <= 15 else 20, 0.002)
        rates = meter.look(tenth / 10)
    assert (rates.window_s, rates.reads_per_s) == (1.0, 200.0)
    meter.look(33.0)
    rates = meter.look(34.0)
    assert (rates.window_s, rates.reads_per_s, rates.read_p99_ms) == (1.0, 0.0, None)


@pytest.mark.parametrize("scale_s", [1e-6, 1e-4, 1e-2, 1.0, 60.0])
def test_a_percentile_is_right_to_an_eighth(scale_s: float) -> None:
    """Whatever is measured, from microseconds to a minute."""
    random, meter = Random(7), Meter()
    meter.look(0.0)
    latencies_s = [scale_s * (0.5 + random.random()) for _ in range(2000)]
    for latency_s in latencies_s:
        meter.note_writes(1, latency_s)
    rates = meter.look(1.0)
    latencies_s.sort()
    for told_ms, share in ((rates.write_p50_ms, 0.5), (rates.write_p99_ms, 0.99)):
        assert told_ms is not None
        true_ms = 1000 * latencies_s[int(share * len(latencies_s)) - 1]
        assert abs(told_ms - true_ms) <= true_ms / 8 + 0.001
