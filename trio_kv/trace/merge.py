"""One trace of those of several processes: what caused something stands before it, whatever the clocks said.

Each process' own order is kept. Between processes the clock decides, unless it contradicts a cause: an event waits for
those that must have come before, as long as the process that can tell them has more to tell.
"""

from collections.abc import Iterable, Iterator, Sequence

import attrs

from trio_kv.trace.causes import Causes
from trio_kv.trace.marks import TraceEnded, TraceStarted
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClusterStarted, NodeStarted


@attrs.define
class _Source:
    """The trace of one process."""

    process: int
    records: Iterator[Record]
    head: Record | None = None

    def advance(self) -> None:
        """Go on to the next record."""
        found = next(self.records, None)
        self.head = None if found is None else attrs.evolve(found, process=self.process)


def merge_traces(traces: Sequence[Iterable[Record]]) -> Iterator[Record]:
    """Yield the records of several processes in one order, numbered by `process` from 1.

    Args:
        traces: of each process; those of a trace that was merged already keep nothing of that.

    """
    sources = [_Source(number, iter(records)) for number, records in enumerate(traces, start=1)]
    homes: dict[int, _Source] = {}
    """Where each node tells."""
    causes: Causes[bool] = Causes()
    for source in sources:
        source.advance()
    while heads := [source for source in sources if source.head is not None]:
        source = _choose(heads, causes, homes)
        record = source.head
        assert record is not None
        if isinstance(record.event, ClusterStarted):
            homes |= dict.fromkeys(record.event.here, source)
        elif isinstance(record.event, NodeStarted) and record.node is not None:
            homes[record.node] = source
        causes.note(record, True)
        yield record
        source.advance()


def _choose(heads: list[_Source], causes: Causes[bool], homes: dict[int, _Source]) -> _Source:
    """Return who comes next: the earliest of those that wait for nobody, or the earliest of all."""
    heads.sort(key=_time_of)
    first = heads[0]
    for source in heads:
        record = source.head
        assert record is not None
        if isinstance(record.event, TraceStarted | TraceEnded | ClusterStarted):
            # They cause nothing, and who tells what must be known early.
            return source
    for source in heads:
        record = source.head
        assert record is not None
        homes_of = (homes.get(node) for node in causes.missing(record))
        if not any(home is not None and home is not source and home.head is not None for home in homes_of):
            return source
    return first


def _time_of(source: _Source) -> float:
    assert source.head is not None
    return source.head.time_s
