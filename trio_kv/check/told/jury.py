"""All judges of what nodes tell, and what led to what they find."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from trio_kv.check.told.broken import Broken, Record
from trio_kv.check.told.commits import Commits, Machines
from trio_kv.check.told.elections import Elections, LeaderCompleteness
from trio_kv.check.told.logs import Logs, MonotonicTerm
from trio_kv.check.told.story import Story
from trio_kv.raft.events import (
    ElectionStarted,
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    Event,
    LeaderElected,
    LeaderSteppedDown,
    LogTruncated,
    RebuildEnded,
    SnapshotInstalled,
    VoteGranted,
)
from trio_kv.trace.marks import TraceEnded, TraceLost, TraceStarted
from trio_kv.trace.vocabulary import (
    ClusterStarted,
    EntriesApplied,
    NodeCrashed,
    NodeStarted,
    NodeStopped,
    RebuildStarted,
    SnapshotTaken,
    WritesAnswered,
)

HOOKS: dict[type[Event], str] = {
    ClusterStarted: "cluster_started",
    NodeStarted: "started",
    RebuildStarted: "rebuild_started",
    RebuildEnded: "rebuild_ended",
    ElectionStarted: "stood",
    VoteGranted: "vote_granted",
    LeaderElected: "elected",
    EntriesAppended: "appended",
    EntriesStored: "stored",
    LogTruncated: "truncated",
    EntriesCommitted: "committed_to",
    EntriesApplied: "applied",
    WritesAnswered: "answered",
    SnapshotInstalled: "installed",
    SnapshotTaken: "snapshot_taken",
}
"""What judges, and the story after them, are called by for each event; a judge has those that it cares for."""

REMEMBERED_MAX = 4096
"""So many of the latest events are searched for what led to a violation."""
CHAIN_MAX = 24
"""So many of them are told."""

_ABOUT_TERMS = (ElectionStarted, VoteGranted, LeaderElected, LeaderSteppedDown)
_ABOUT_NODES = (NodeStarted, NodeCrashed, NodeStopped, RebuildStarted, RebuildEnded)
_REMEMBERED = (*HOOKS, LeaderSteppedDown, NodeCrashed, NodeStopped)


@attrs.define
class Process:
    """Where the trace of a process stands."""

    seq: int | None = None
    """Of its latest event; None before the first one."""
    has_ended: bool = True


class Jury:
    """Shows each event of a trace to all judges, in order."""

    def __init__(self) -> None:
        """Have heard nothing."""
        self.story = story = Story()
        self.events = 0
        """How many were heard."""
        self.runs = 0
        """How often a process began."""
        self.killed = 0
        """How many runs ended without a word, or go on."""
        self.doubts: list[str] = []
        """Why nothing is proved, though nothing is violated."""
        self.broken_by: list[Record] = []
        """The event that broke something; nothing is judged behind it."""
        self._processes: dict[int | None, Process] = {}
        self._remembered: deque[Record] = deque(maxlen=REMEMBERED_MAX)
        completeness = LeaderCompleteness(story)
        self.logs, self.machines = Logs(story), Machines(story)
        judges = (
            Elections(story),
            completeness,
            self.logs,
            Commits(story, completeness),
            self.machines,
            self._term_judge(story),
        )
        self._hooks: dict[type[Event], tuple[Callable[[Record, Any], None], ...]] = {
            event_class: tuple(getattr(each, name) for each in (*judges, story) if hasattr(each, name))
            for event_class, name in HOOKS.items()
        }

    def _term_judge(self, story: Story) -> MonotonicTerm:
        terms = MonotonicTerm(story)
        self._look_at_term = terms.told
        return terms

    def hear(self, record: Record) -> None:
        """Take in the next event.

        Raises:
            Broken: a property does not hold; with the event that broke it, and those that led to it.

        """
        self.events += 1
        self._follow(record)
        event_class = type(record.event)
        hooks = self._hooks.get(event_class)
        try:
            if record.role is not None and record.node is not None and record.term is not None:
                self._look_at_term(record)
            if hooks is not None:
                for hook in hooks:
                    hook(record, record.event)
        except Broken as broken:
            broken.record = record
            self.broken_by.append(record)
            broken.chain = self._find_chain(broken, record)
            raise
        if event_class in _REMEMBERED:
            self._remembered.append(record)

    def end(self) -> None:
        """Take in that there is nothing more."""
        self.killed += sum(not process.has_ended for process in self._processes.values())
        if not self.events:
            self._doubt("there are no events in it")
        elif self.story.voters is None:
            self._doubt("no cluster.started in it says which nodes there are: it is no whole trace")
        elif self.story.absent:
            missing = ", ".join(map(str, sorted(self.story.absent)))
            self._doubt(
                f"what the nodes {missing} told is not in it: `trace merge` joins the traces of processes"
            )

    # What is missing

    def _follow(self, record: Record) -> None:
        """Find out whether something is missing before this event."""
        process = self._processes.setdefault(record.process, Process())
        event = record.event
        if isinstance(event, TraceStarted):
            self.runs += 1
            if not process.has_ended:
                self._killed(record)
            process.seq, process.has_ended = record.seq, False
            return
        due = None if process.seq is None else process.seq + 1
        if isinstance(event, TraceLost):
            self._lost(f"{event.count:,} events were lost: {event.first} to {event.last}")
            process.seq = max(process.seq or 0, event.last)
            return
        if isinstance(event, TraceEnded):
            process.has_ended = True
            if event.lost:
                self._lost(f"it says that {event.lost:,} events were lost in all")
            return
        if due is not None and record.seq != due:
            what = f"{due} to {record.seq - 1} are missing" if record.seq > due else "comes again or too late"
            self._lost(f"event {record.seq}: {what}")
        elif due is None and record.seq != 1:
            self._lost(f"it begins at event {record.seq}")
        process.seq = record.seq

    def _killed(self, record: Record) -> None:
        """Know that a process was killed: the last that it told never reached the file."""
        self.killed += 1
        if record.process is None:
            self.story.break_off()
        else:
            self._lost(f"process {record.process} was killed, and what it told last is not known")

    def _lost(self, why: str) -> None:
        self.story.has_gap = True
        self.story.break_off()
        self._doubt(why)

    def _doubt(self, why: str) -> None:
        self.doubts.append(why)

    # What led to it

    def _find_chain(self, broken: Broken, last: Record) -> Sequence[Record]:
        """Return the events about the same entry or term that came before, the newest of them, in order."""
        found = [each for each in self._remembered if _is_about(each, broken, last)]
        found = found[-CHAIN_MAX:]
        older = [each for each in broken.earlier if each is not last and not _is_in(each, found)]
        return [*older, *found]


def _is_in(record: Record, records: Sequence[Record]) -> bool:
    return any(each is record for each in records)


def _is_about(record: Record, broken: Broken, last: Record) -> bool:
    event = record.event
    if isinstance(event, _ABOUT_TERMS):
        return broken.term is not None and record.term == broken.term
    if isinstance(event, _ABOUT_NODES):
        return record.node == last.node
    return broken.index is not None and any(first <= broken.index <= end for first, end in _indexes(event))


def _indexes(event: Event) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of what an event is about."""
    match event:
        case EntriesAppended() | EntriesCommitted() | EntriesApplied() | LogTruncated():
            yield event.first, event.last
        case EntriesStored() | WritesAnswered():
            yield event.last, event.last
        case SnapshotInstalled() | SnapshotTaken():
            yield event.index, event.index
        case _:
            pass
