"""The events by which a trace tells of itself: where a run begins and ends, and what is missing."""

from typing import Any

from trio_kv.raft.events import DEBUG, WARNING, Event, event


@event("trace.started")
class TraceStarted(Event):
    """The first line of a run in a trace file."""

    schema: int
    version: str
    """Of trio_kv."""


@event("trace.lost", WARNING)
class TraceLost(Event):
    """Events were dropped here, because they came faster than they were taken. What they told is unknown.

    In a log, `count` is the number of its own lines, and `seq` that of all events.
    """

    count: int
    first: int
    """`seq` of the first event that was dropped."""
    last: int


@event("trace.ended")
class TraceEnded(Event):
    """The last line of a run in a trace file, if the store was stopped and not killed."""

    lost: int
    """How many events were dropped in all."""


@event("trace.failed", WARNING)
class TraceFailed(Event):
    """The trace file can't be written: its events are lost until it can be again."""

    file: str
    reason: str


@event("trace.unknown", DEBUG)
class UnknownEvent(Event):
    """An event of a newer version, as read from a file."""

    original: str
    members: dict[str, Any]
