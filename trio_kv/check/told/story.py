"""What is known of a run by what was told of it up to now.

The judges look at the story as it was before an event; `Story` takes the event in after them.
"""

from collections.abc import Iterator

import attrs

from trio_kv.check.told.broken import Record
from trio_kv.check.told.contents import Span
from trio_kv.check.told.terms import Terms
from trio_kv.raft.entry import LOG_START, LogPosition
from trio_kv.raft.events import (
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    LogTruncated,
    RebuildEnded,
    SnapshotInstalled,
)
from trio_kv.raft.voters import Voters
from trio_kv.trace.vocabulary import ClusterStarted, EntriesApplied, NodeStarted, RebuildStarted


@attrs.define(eq=False)
class NodeStory:
    """What a node told of itself. Nothing of it counts before it is seen to start, or from a gap on."""

    node: int
    is_known: bool = False
    life: int = 0
    """Counts its starts."""
    incarnation: int | None = None
    term: int = 0
    end: LogPosition = LOG_START
    """The last entry of its log."""
    durable: int = 0
    """Its log is on its disk up to here."""
    former: LogPosition = LOG_START
    """While it is rebuilt: up to where its former self had stored entries, which still count."""
    commit: int = 0
    applied: int = 0
    is_rebuilding: bool = False
    promised_term: int = 0
    """No start of this incarnation may begin in an earlier term: others heard from it in this one."""
    appended: Span = attrs.field(factory=Span)
    committed: Span = attrs.field(factory=Span)

    def __str__(self) -> str:
        return f"n{self.node}"


class Story:
    """The nodes, and what the cluster as a whole did."""

    def __init__(self) -> None:
        """Know nothing."""
        self.cluster: str | None = None
        self.members: tuple[int, ...] = ()
        self.voters: Voters | None = None
        self.absent: set[int] = set()
        """Members of whose process nothing was told."""
        self.has_gap = False
        """Whether something that was told is missing."""
        self.forget()

    def forget(self) -> None:
        """Know no node and no term: another cluster begins."""
        self.nodes: dict[int, NodeStory] = {}
        self.terms = Terms()
        self.committed = LOG_START
        """The last entry that is known to be committed."""
        self.is_commit_known = True
        """Whether nothing further can be committed, up to now."""

    def of(self, record: Record) -> NodeStory:
        """Return the story of the node that tells something."""
        assert record.node is not None
        found = self.nodes.get(record.node)
        if found is None:
            found = self.nodes[record.node] = NodeStory(record.node)
        return found

    def break_off(self) -> None:
        """Take nothing as known of nodes that run: some events are missing here, or their process was killed."""
        self.is_commit_known = False
        for node in self.nodes.values():
            node.is_known = False
            node.durable = 0  # It may have dropped meanwhile what it had stored.

    def holders(self, place: LogPosition) -> list[int] | None:
        """Return the nodes on whose disks an entry is, as far as it is known; None if something is missing."""
        if self.voters is None or self.has_gap or self.absent:
            return None
        found = []
        for each in self.nodes.values():
            end = each.former if each.is_rebuilding and each.former.index >= place.index else None
            if end is None and each.durable >= place.index:
                end = each.end
            if end is None:
                continue
            holds = self.terms.holds(end, place)
            if holds is None:
                return None
            if holds:
                found.append(each.node)
        return found

    # What each event changes

    def cluster_started(self, record: Record, event: ClusterStarted) -> None:
        """Know who has a vote. A cluster of another id has nothing to do with what was before."""
        del record
        if self.cluster not in {None, event.cluster}:
            self.forget()
        if self.members != event.nodes:
            self.members, self.voters = event.nodes, Voters(event.nodes)
            self.absent = {*event.nodes} - self.nodes.keys()
        self.cluster = event.cluster
        self.absent -= {*event.here}

    def started(self, record: Record, event: NodeStarted) -> None:
        """Know what a node's disk holds."""
        node = self.of(record)
        is_other = node.incarnation not in {None, event.incarnation}
        if is_other and not node.is_rebuilding:
            node.former = LogPosition(node.durable, self.terms.term_at(node.end, node.durable) or 0)
        if is_other:
            node.promised_term = 0
        for first, term, before in starts(event):
            self.terms.note(term, first, before)
        node.is_known = True
        node.life += 1
        node.incarnation, node.is_rebuilding = event.incarnation, event.is_rebuilding
        if not node.is_rebuilding:
            node.former = LOG_START
        node.term = record.term or 0
        node.end = LogPosition(event.log_last, event.log_terms[-1][1] if event.log_terms else 0)
        node.durable = event.log_last
        node.commit = node.applied = event.log_first - 1
        if event.log_terms and event.log_terms[0][0] == event.log_first - 1:
            self._note_committed(LogPosition(*event.log_terms[0]))
        node.appended.end()
        node.committed.end()

    def rebuild_started(self, record: Record, event: RebuildStarted) -> None:
        """Know that a disk is gone. What was on it counts until the node is rebuilt."""
        del event
        node = self.of(record)
        if not node.is_rebuilding:
            node.former = LogPosition(node.durable, self.terms.term_at(node.end, node.durable) or 0)
        node.is_known, node.is_rebuilding = False, True
        node.durable = node.promised_term = 0

    def rebuild_ended(self, record: Record, event: RebuildEnded) -> None:
        """Know that a node counts again."""
        del event
        node = self.of(record)
        node.is_rebuilding, node.former = False, LOG_START

    def appended(self, record: Record, event: EntriesAppended) -> None:
        """Know a longer log."""
        node = self.of(record)
        if event.last_term == record.term and record.role == "leader" and not self.terms.has(event.last_term):
            before = self.terms.term_at(node.end, event.first - 1) if node.is_known else None
            self.terms.note(event.last_term, event.first, before)
        node.end = LogPosition(event.last, event.last_term)

    def truncated(self, record: Record, event: LogTruncated) -> None:
        """Know a shorter log."""
        node = self.of(record)
        last = event.first - 1
        term = self.terms.term_at(node.end, last)
        if term is None:
            node.is_known = False
        node.end = LogPosition(last, term or 0)
        node.durable = min(node.durable, last)

    def stored(self, record: Record, event: EntriesStored) -> None:
        """Know how far a log is durable."""
        node = self.of(record)
        node.durable = event.last
        node.promised_term = max(node.promised_term, self.terms.term_at(node.end, event.last) or 0)

    def committed_to(self, record: Record, event: EntriesCommitted) -> None:
        """Know what is committed."""
        self.of(record).commit = event.last
        self._note_committed(LogPosition(event.last, event.last_term))
        if record.role == "leader":
            self.is_commit_known = True

    def applied(self, record: Record, event: EntriesApplied) -> None:
        """Know what is applied."""
        self.of(record).applied = event.last

    def installed(self, record: Record, event: SnapshotInstalled) -> None:
        """Know that a snapshot took the place of a log, or of its beginning."""
        node = self.of(record)
        if event.is_log_kept:
            node.durable = max(node.durable, event.index)
        else:
            node.end, node.durable = LogPosition(event.index, event.index_term), event.index
        self.terms.note(event.index_term, event.index, None)
        node.commit = node.applied = event.index
        self._note_committed(LogPosition(event.index, event.index_term))
        node.appended.end()
        node.committed.end()

    def _note_committed(self, place: LogPosition) -> None:
        if place.index > self.committed.index:
            self.committed = place


def starts(event: NodeStarted) -> Iterator[tuple[int, int, int | None]]:
    """Yield (first index, term, term before it) of the terms in the log of a node that starts."""
    before: int | None = (
        0 if event.log_first == 1 and event.log_terms[:1] and event.log_terms[0][0] == 1 else None
    )
    for first, term in event.log_terms:
        yield first, term, before
        before = term
