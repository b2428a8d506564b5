"""The trace: it stamps each event with who tells it and when, and hands it to each sink that wants its level.

A sink never blocks and never raises: what it can't take it counts. Callers that would have to make an
event first ask `trace.level`, so a level that nobody wants costs one branch:

    if trace.level <= DEBUG:
        trace.emit(EntriesApplied(...), node=2, term=5, role="leader")

Not safe for threads: a trace belongs to the thread of the event loop.
"""

import functools
import math
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

import attrs

from trio_kv.raft.events import Event
from trio_kv.trace.schema import OFF, level_name, member_names


@attrs.frozen
class Record:
    """One event, with the members that all events share."""

    time_s: float
    """UTC, in seconds since 1970."""
    mono_s: float
    """A clock that never jumps, in seconds; comparable within one run."""
    seq: int
    """Counts the events of one trace from 1: a gap is a loss."""
    event: Event
    node: int | None = None
    term: int | None = None
    role: str | None = None
    process: int | None = None
    """Which process told it, in a trace that was merged of several."""

    def members(self) -> dict[str, Any]:
        """Return what a line of JSON shows of it; node, term and role are left out where they don't apply."""
        event_class = type(self.event)
        members: dict[str, Any] = {
            "time": format_time(self.time_s),
            "mono": round(self.mono_s, 6),
            "seq": self.seq,
            "level": level_name(event_class.level),
            "event": event_class.name,
        }
        if self.node is not None:
            members["node"] = self.node
        if self.term is not None:
            members["term"] = self.term
        if self.role is not None:
            members["role"] = self.role
        if self.process is not None:
            members["process"] = self.process
        for name in member_names(event_class):
            members[name] = getattr(self.event, name)
        return members


class Sink(Protocol):
    """Where records go."""

    @property
    def level(self) -> int:
        """The lowest level that it wants; does not change while it is in a trace."""
        ...

    def write(self, record: Record) -> None:
        """Take a record. Never blocks, never raises."""
        ...


class Trace:
    """Stamps events and hands them on.

    Args:
        sinks: who wants to know.
        wall_s: UTC in seconds since 1970.
        mono_s: a clock that never jumps, in seconds.

    """

    def __init__(
        self,
        sinks: Iterable[Sink] = (),
        *,
        wall_s: Callable[[], float] = time.time,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wall_s = wall_s
        self.mono_s = mono_s
        self._sinks: tuple[Sink, ...] = ()
        self._seq = 0
        self.level = OFF
        """The lowest level that any sink wants."""
        self.on_level: list[Callable[[int], object]] = []
        """Who is told when that has changed."""
        for sink in sinks:
            self.add_sink(sink)

    @property
    def event_count(self) -> int:
        """How many events were told to somebody."""
        return self._seq

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """Who is told."""
        return self._sinks

    def add_sink(self, sink: Sink) -> None:
        """Hand all further events of its level to this sink, too."""
        self._set_sinks((*self._sinks, sink))

    def remove_sink(self, sink: Sink) -> None:
        """Hand nothing more to this sink.

        Raises:
            ValueError: the sink is not in the trace.

        """
        if sink not in self._sinks:
            raise ValueError(f"{sink!r} is not in this trace")
        self._set_sinks(tuple(other for other in self._sinks if other is not sink))

    def _set_sinks(self, sinks: tuple[Sink, ...]) -> None:
        self._sinks = sinks
        level = min((sink.level for sink in sinks), default=OFF)
        if level != self.level:
            self.level = level
            for told in self.on_level:
                told(level)

    def emit(
        self, event: Event, *, node: int | None = None, term: int | None = None, role: str | None = None
    ) -> None:
        """Tell an event.

        Args:
            event: what happened.
            node: to which node, if to one.
            term: the term the node was in, if it matters.
            role: what the node was then: follower, candidate, leader.

        """
        level = type(event).level
        if level < self.level:
            return
        self._seq += 1
        record = Record(self.wall_s(), self.mono_s(), self._seq, event, node, term, role)
        for sink in self._sinks:
            if level >= sink.level:
                sink.write(record)

    def relay(self, record: Record, process: int) -> None:
        """Hand on what another process has stamped and told."""
        level = type(record.event).level
        record = attrs.evolve(record, process=process)
        for sink in self._sinks:
            if level >= sink.level:
                sink.write(record)


def format_time(time_s: float) -> str:
    """Return a point in time as ISO 8601 in UTC, with microseconds."""
    part_s, second = math.modf(time_s)
    microsecond = round(part_s * 1_000_000)
    if not 0 <= microsecond < 1_000_000:
        second, microsecond = second + microsecond // 1_000_000, microsecond % 1_000_000
    return f"{_format_second(int(second))}.{microsecond:06d}Z"


@functools.lru_cache(maxsize=16)
def _format_second(second: int) -> str:
    """Return a second as text. A trace has thousands of events in one."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse_time(text: str) -> float:
    """Return the seconds since 1970 that an ISO 8601 text names.

    Raises:
        ValueError: it names none.

    """
    return datetime.fromisoformat(text).timestamp()
