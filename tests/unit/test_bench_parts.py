"""Claims about the parts of `trio-kv bench`: its histogram, its requests, and its judgement of answers."""

import itertools
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_kv.cli.bench.answers import Answers
from trio_kv.cli.bench.histogram import RELATIVE_ERROR, Histogram, bounds_of, bucket_of, merge
from trio_kv.cli.bench.report import histogram_lines
from trio_kv.cli.bench.workload import (
    RING_BYTES_MAX,
    Batch,
    Distribution,
    Workload,
    is_value_of,
    key_of,
    value_of,
)

DURATIONS = st.integers(min_value=0, max_value=(1 << 63) - 1)


def make_workload(
    *,
    mix: float = 50,
    is_stale: bool = False,
    pipeline: int = 1,
    keys: int = 100,
    distribution: Distribution = "uniform",
    value_bytes: int = 40,
    seed: int = 1,
) -> Workload:
    return Workload(
        mix=mix,
        is_stale=is_stale,
        pipeline=pipeline,
        keys=keys,
        distribution=distribution,
        value_bytes=value_bytes,
        seed=seed,
    )


def keys_of(batches: list[Batch]) -> list[str]:
    return [msgspec.json.decode(line)["key"] for batch in batches for line in batch.data.splitlines()]


@given(DURATIONS)
def test_a_bucket_holds_its_values(value_ns: int) -> None:
    """Each value lies between the bounds of its bucket, which are as near as is said."""
    low, above = bounds_of(bucket_of(value_ns))
    assert low <= value_ns < above
    assert (above - 1 - low) / 2 <= RELATIVE_ERROR * low


@given(DURATIONS)
def test_buckets_follow_each_other(value_ns: int) -> None:
    """Where one bucket ends the next one begins."""
    bucket = bucket_of(value_ns)
    _, above = bounds_of(bucket)
    assert above == 1 << 63 or bucket_of(above) == bucket + 1


@given(st.lists(st.integers(1, 10**11), min_size=1), st.sampled_from([1.0, 50.0, 90.0, 99.9, 100.0]))
def test_a_percentile_is_near_the_true_one(values_ns: list[int], percent: float) -> None:
    """It is off by no more than the error that is told, though no value is kept."""
    histogram = Histogram()
    for value_ns in values_ns:
        histogram.record(value_ns)
    place = next(n for n in range(1, len(values_ns) + 1) if n >= percent / 100 * len(values_ns))
    exact_ms = sorted(values_ns)[place - 1] / 1e6
    assert histogram.percentile_ms(percent) == pytest.approx(exact_ms, rel=RELATIVE_ERROR)


def test_what_is_recorded_several_times_counts_so_often() -> None:
    """A batch of sixteen is sixteen requests of one latency, and histograms add up."""
    first, second = Histogram(), Histogram()
    first.record(1_000_000, 16)
    second.record(9_000_000)
    both = merge(first, second)
    assert (first.count, second.count, both.count) == (16, 1, 17)
    assert both.percentile_ms(90) == pytest.approx(1.0, rel=RELATIVE_ERROR)
    assert both.percentile_ms(100) == pytest.approx(9.0, rel=RELATIVE_ERROR)


def test_nothing_recorded_is_zero() -> None:
    """An empty histogram has percentiles, too, and no lines."""
    assert Histogram().percentile_ms(99) == 0
    assert list(histogram_lines(Histogram())) == []


def test_the_text_of_a_histogram_has_a_line_for_each_span() -> None:
    """From the first span that is not empty to the last, with the shares of all."""
    histogram = Histogram()
    histogram.record(300_000, 3)
    histogram.record(7_000_000)
    lines = list(histogram_lines(histogram))
    assert [line.split()[:3] for line in lines] == [
        ["0.2", "to", "0.5"],
        ["0.5", "to", "1"],
        ["1", "to", "2"],
        ["2", "to", "5"],
        ["5", "to", "10"],
    ]
    assert "75.00%" in lines[0]
    assert "25.00%" in lines[-1]


def test_a_seed_says_all_about_the_requests() -> None:
    """The same seed draws the same ring, another seed another one."""
    assert make_workload().make_ring() == make_workload().make_ring()
    assert make_workload().make_ring() != make_workload(seed=2).make_ring()


@pytest.mark.parametrize(("mix", "low", "high"), [(0, 0, 0), (10, 0.08, 0.12), (100, 1, 1)])
def test_the_mix_is_the_share_of_sets(mix: float, low: float, high: float) -> None:
    """Also within a batch, and a batch knows how many it has."""
    ring = make_workload(mix=mix, pipeline=16).make_ring()
    assert all(batch.size == batch.data.count(b"\n") == 16 for batch in ring)
    assert all(batch.sets == batch.data.count(b'"value"') for batch in ring)
    assert low <= sum(batch.sets for batch in ring) / (16 * len(ring)) <= high


def test_a_stale_get_says_so() -> None:
    """Only GETs do."""
    ring = make_workload(is_stale=True).make_ring()
    assert all((batch.gets == 1) == (b'"consistency": "stale"' in batch.data) for batch in ring)


def test_zipf_asks_for_a_few_keys_often() -> None:
    """The shares of the first keys are those of the law: 1, 1/2^0.99, 1/3^0.99 of the same whole."""
    counts = Counter(keys_of(make_workload(distribution="zipf", keys=1000).make_ring()))
    whole = sum(1 / rank**0.99 for rank in range(1, 1001))
    requests = sum(counts.values())
    for rank in (1, 2, 3):
        assert counts[key_of(rank - 1)] / requests == pytest.approx(1 / rank**0.99 / whole, rel=0.15)


def test_uniform_asks_for_all_keys_alike() -> None:
    """No key is much more frequent than another."""
    counts = Counter(keys_of(make_workload(keys=50).make_ring()))
    assert len(counts) == 50
    assert max(counts.values()) < 1.5 * min(counts.values())


def test_filling_writes_each_key_once() -> None:
    """None is left out at the end, and the values are those of their keys."""
    batches = list(make_workload(keys=1000).fill_batches())
    assert keys_of(batches) == [key_of(number) for number in range(1000)]
    assert sum(batch.sets for batch in batches) == 1000


def test_a_ring_of_large_values_has_bounds() -> None:
    """Ready-made requests take no more memory than is said, however large a value is."""
    ring = make_workload(value_bytes=1 << 20, mix=100).make_ring()
    assert sum(len(batch.data) for batch in ring) <= RING_BYTES_MAX


@given(st.integers(0, 9_999_999), st.integers(0, 10**6), st.integers(1, 60))
def test_a_value_is_known_as_its_keys(key: int, number: int, size_bytes: int) -> None:
    """Whatever its size; and not as another key's, if it is long enough to tell."""
    value = value_of(key_of(key), number, size_bytes)
    assert len(value) == size_bytes
    assert is_value_of(key_of(key), value)
    assert size_bytes < 14 or not is_value_of(key_of(key + 1), value)


@pytest.mark.parametrize(
    "value",
    [None, 7, "bench:0000001", "bench:0000002.1.xxx", "bench:0000001.y.xxx", "bench:0000001.1.xyx", ["x"]],
)
def test_what_was_never_written_is_no_value(value: object) -> None:
    """Of the key 1: other types, another key's value, no number, other padding; a value that is cut off is one."""
    assert is_value_of("bench:0000001", value) == (value == "bench:0000001")


SET_1, SET_2, GET_1 = (
    '{"key": "bench:0000001", "value": "bench:0000001.1.xx"}\n',
    '{"key": "bench:0000002", "value": "bench:0000002.2.xx"}\n',
    '{"key": "bench:0000001"}\n',
)
OK_1, OK_2 = (line.replace("}", ', "status": "ok"}') for line in (SET_1, SET_2))


def batch_of(*lines: str) -> Batch:
    sets = sum('"value"' in line for line in lines)
    return Batch("".join(lines).encode(), sets, len(lines) - sets)


@pytest.mark.parametrize(
    ("requests", "reply"),
    [
        ([SET_1], SET_1),
        ([SET_1], OK_2),
        ([SET_1], OK_1.replace("1.1.", "1.9.")),
        ([SET_1], OK_1.replace('"ok"', '"error"')),
        ([SET_1], OK_1.replace('"value"', '"valu"')),
        ([SET_1, SET_2], OK_2 + OK_1),
        ([SET_1, SET_2], OK_1),
        ([SET_1, SET_2], OK_1 + OK_2 + OK_2),
        ([SET_1, SET_2], OK_1 + OK_2 + "{"),
        ([SET_1], "ok\n"),
        ([SET_1], "[]\n"),
        ([SET_1], "\n"),
        ([GET_1], OK_2),
        ([GET_1], OK_1.replace("0001.1", "0002.1")),
        ([GET_1], OK_1.replace('"bench:0000001.1.xx"', "true")),
        ([GET_1], OK_1.replace('"bench:0000001.1.xx"', "null")),
    ],
)
def test_a_lie_is_found(requests: list[str], reply: str) -> None:
    """No echo, another key, another value, out of order, too few, too many, no JSON: the batch is wrong as a whole."""
    answers = Answers()
    batch = batch_of(*requests)
    assert [code for _, code in answers.judge(batch, reply.encode())] == ["wrong"] * batch.size
    assert answers.wrong == 1
    assert len(answers.examples) == 1


def test_a_key_that_was_written_must_be_found() -> None:
    """`missing` is an answer only as long as not every key was written."""
    missing = b'{"key": "bench:0000001", "value": null, "status": "error"}\n'
    assert Answers().judge(batch_of(GET_1), missing) == [(False, "missing")]
    assert Answers(is_filled=True).judge(batch_of(GET_1), missing) == [(False, "wrong")]


def test_right_answers_and_refusals_are_told_apart() -> None:
    """Each by its code, in the order of the requests; what closes a connection is no answer."""
    answers = Answers()
    refused = '{"key": null, "value": null, "status": "error", "error": "overloaded", "message": "m"}\n'
    text = OK_1 + refused + OK_1 + '{"close": "shutdown"}\n'
    codes = answers.judge(batch_of(SET_1, SET_2, GET_1, GET_1), text.encode())
    assert codes == [(True, "ok"), (True, "overloaded"), (False, "ok"), (False, "closed")]
    assert not answers.wrong


def test_how_a_server_writes_ok_is_learnt() -> None:
    """From its first answer, so that the next ones need not be read."""
    answers = Answers()
    compact = OK_1.replace(": ", ":").replace(", ", ",").encode()
    assert answers.ok_mark not in compact
    assert answers.judge(batch_of(SET_1), compact) == [(True, "ok")]
    assert answers.ok_mark in compact


def test_only_the_first_lies_are_kept() -> None:
    """A server that lies all the time does not fill the memory."""
    answers = Answers()
    for _ in itertools.repeat(None, 100):
        answers.judge(batch_of(SET_1), b"no\n")
    assert answers.wrong == 100
    assert len(answers.examples) == 3
