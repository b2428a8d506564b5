"""`--pin`: which processors processes are kept to."""

import os
import threading
from random import Random

import pytest

from trio_kv.cli import processors
from trio_kv.cli.errors import UsageError
from trio_kv.cli.options import ServeOptions
from trio_kv.cli.processors import Pin, choose_processors, kept_to, own_processors
from trio_kv.trace.processes import ProcessPinned
from trio_kv.trace.trace import Record, Trace

NOT_THERE = 8191
"""A processor that no machine has that runs this test."""
needs_processors = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system keeps no process to a processor"
)


@pytest.mark.parametrize(
    ("pin", "processes", "count"),
    [
        ("auto", 1, 0),
        ("auto", 2, 2),
        ("auto", 4, 4),
        ("auto", 5, 0),
        ("yes", 1, 1),
        ("yes", 3, 3),
        ("no", 2, 0),
    ],
)
def test_each_process_has_a_processor_of_its_own(
    pin: Pin, processes: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that the server may use, which need not begin with 0."""
    own = [1, 2, 5, 7]
    monkeypatch.setattr(processors, "own_processors", lambda: own)
    drawn = {choose_processors(pin, processes, Random(seed)) for seed in range(50)}
    for chosen in drawn:
        assert len(chosen) == len(set(chosen)) == count
        assert set(chosen) <= set(own)
    if count:
        assert {chosen[0] for chosen in drawn} == set(own), "all servers begin with the same processors"


def test_what_was_asked_for_and_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` asks for nothing."""
    for why, own in (("there are 2", [0, 1]), ("this system keeps no process to a processor", [])):
        monkeypatch.setattr("trio_kv.cli.options.own_processors", lambda own=own: own)
        with pytest.raises(UsageError, match=f"--pin yes.*{why}.*leave it out"):
            ServeOptions(pin="yes", processes=3).check()
        ServeOptions(processes=3).check()
        ServeOptions(processes=3, pin="no").check()


@needs_processors
def test_a_thread_that_starts_meanwhile_is_kept_as_well_and_all_ends() -> None:
    """And it is told."""
    before = os.sched_getaffinity(0)
    last = max(own_processors())
    seen: list[set[int]] = []
    records: list[Record] = []
    trace = Trace()
    trace.add_sink(_Sink(records))
    with kept_to(last, trace):
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert seen == [{last}]
    assert os.sched_getaffinity(0) == before
    assert [record.event for record in records] == [ProcessPinned(last)]
    with kept_to(None, trace):
        assert os.sched_getaffinity(0) == before
    assert len(records) == 1
    with kept_to(NOT_THERE, trace):
        assert os.sched_getaffinity(0) == before
    assert len(records) == 1


class _Sink:
    level = 0

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def write(self, record: Record) -> None:
        self._records.append(record)
