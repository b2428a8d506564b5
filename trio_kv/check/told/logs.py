"""Log matching (paper §5.3), monotonic terms, and what a disk has to give back."""

from trio_kv.check.told.broken import Broken, Record
from trio_kv.check.told.contents import Contents, Span
from trio_kv.check.told.story import NodeStory, Story, starts
from trio_kv.raft.entry import LogPosition
from trio_kv.raft.events import (
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    LeaderElected,
    LogTruncated,
)
from trio_kv.trace.vocabulary import ClusterStarted, NodeStarted

LOG_MATCHING = "log matching"
MONOTONIC_TERM = "monotonic term"
DURABLE = "durable log"
LEADER_APPEND_ONLY = "leader append-only"


class Logs:
    """Compares each log with what is known of its terms, and what entries hold with what their leader appended."""

    def __init__(self, story: Story) -> None:
        """Know no log."""
        self._story = story
        self.contents = Contents()

    def cluster_started(self, record: Record, event: ClusterStarted) -> None:
        """Begin anew with another cluster."""
        del record
        if self._story.cluster not in {None, event.cluster}:
            self.contents = Contents()

    def elected(self, record: Record, event: LeaderElected) -> None:
        """Know where the entries of a term begin."""
        node, terms = self._story.of(record), self._story.terms
        assert record.term is not None
        if not node.is_known:
            return
        if event.first_index != node.end.index + 1:
            raise Broken(
                LOG_MATCHING,
                f"{node} begins term {record.term} at {event.first_index}, though its log ends at {node.end}",
                index=event.first_index,
                term=record.term,
            )
        known = terms.note(record.term, event.first_index, node.end.term)
        if known is not None:
            self._refuse_start(node, record.term, event.first_index, known)
        self.contents.begin(record.term, event.first_index)

    def appended(self, record: Record, event: EntriesAppended) -> None:
        """Judge where new entries join a log, and what they hold."""
        node, terms = self._story.of(record), self._story.terms
        if not node.is_known:
            return
        if event.first != node.end.index + 1:
            raise Broken(
                LOG_MATCHING,
                f"{node} appended {event.first}..{event.last}, though its log ends at {node.end}",
                index=event.first,
                term=event.last_term,
            )
        before = terms.term_at(LogPosition(event.last, event.last_term), event.first - 1)
        if before is not None and before != node.end.term:
            raise Broken(
                LOG_MATCHING,
                f"{node} appended {event.first}..{event.last}@{event.last_term} behind {node.end}, where other logs"
                f" that hold them have an entry of term {before}",
                index=event.first - 1,
                term=event.last_term,
            )
        if record.role == "leader":
            if event.last_term != record.term:
                raise Broken(
                    LEADER_APPEND_ONLY,
                    f"{node} leads term {record.term} and appended {event.last}@{event.last_term}",
                    index=event.last,
                    term=record.term,
                )
            self.contents.lead(event.first, event.last, event.last_term, event.crc, event.size_bytes)
        else:
            self._compare(
                node,
                node.appended,
                (event.first, event.last, event.last_term, event.crc, event.size_bytes),
                "appended",
            )

    def committed_to(self, record: Record, event: EntriesCommitted) -> None:
        """Judge what committed entries hold."""
        node = self._story.of(record)
        if node.is_known:
            run = event.first, event.last, event.last_term, event.crc, event.size_bytes
            self._compare(node, node.committed, run, "committed")

    def _compare(self, node: NodeStory, span: Span, run: tuple[int, int, int, int, int], did: str) -> None:
        first, last, term, _, size_bytes = run
        if not size_bytes or not self._story.terms.is_within(first, term):
            span.end()
            return
        span.add(*run)
        begin = span.first
        if self.contents.differs(span):
            raise Broken(
                LOG_MATCHING,
                f"{node} {did} entries {begin}..{last}@{term} that hold something else than those that the leader of"
                " their term appended",
                index=last,
                term=term,
            )

    def truncated(self, record: Record, event: LogTruncated) -> None:
        """Refuse that a leader drops entries, or anybody what is committed or not there."""
        node = self._story.of(record)
        node.appended.end()
        if not node.is_known:
            return
        if record.role == "leader":
            raise Broken(
                LEADER_APPEND_ONLY,
                f"{node} leads term {record.term} and dropped its entries from {event.first} on",
                index=event.first,
                term=record.term,
            )
        if event.first <= node.commit or event.last != node.end.index:
            raise Broken(
                LOG_MATCHING,
                f"{node} dropped {event.first}..{event.last} of a log that ends at {node.end} and is committed up to"
                f" {node.commit}",
                index=event.first,
            )

    def _refuse_start(self, node: NodeStory, term: int, first: int, known: int) -> None:
        raise Broken(
            LOG_MATCHING,
            f"term {term} begins at {first} in the log of {node}, and at {known} in another",
            index=min(first, known),
            term=term,
        )

    def started(self, record: Record, event: NodeStarted) -> None:
        """Judge what a disk gave back: the log of its terms, and no less than it had stored."""
        node, terms = self._story.of(record), self._story.terms
        for first, term, before in starts(event):
            known = terms.note(term, first, before)
            if known is not None:
                self._refuse_start(node, term, first, known)
        if node.incarnation != event.incarnation or node.is_rebuilding:
            return
        if (record.term or 0) < node.promised_term:
            raise Broken(
                MONOTONIC_TERM,
                f"{node} starts in term {record.term}, though it was in term {node.promised_term} before, and others"
                " know that",
                term=node.promised_term,
            )
        end = LogPosition(event.log_last, event.log_terms[-1][1] if event.log_terms else 0)
        if not node.durable or node.durable < event.log_first:
            return
        was = terms.term_at(node.end, node.durable)
        if was is not None and terms.holds(end, LogPosition(node.durable, was)) is False:
            raise Broken(
                DURABLE,
                f"{node} starts with a log that ends at {end}, though {LogPosition(node.durable, was)} was on its disk",
                index=node.durable,
            )

    def stored(self, record: Record, event: EntriesStored) -> None:
        """Refuse that more is durable than there is."""
        node = self._story.of(record)
        if node.is_known and event.last > node.end.index:
            raise Broken(
                DURABLE,
                f"{node} stored entries up to {event.last}, though its log ends at {node.end}",
                index=event.last,
            )


class MonotonicTerm:
    """A node's term never goes back (paper figure 2)."""

    def __init__(self, story: Story) -> None:
        """Know no term."""
        self._story = story

    def told(self, record: Record) -> None:
        """Look at the term of anything that the core of a node tells."""
        node, term = self._story.of(record), record.term
        assert term is not None
        if node.is_known and term < node.term:
            raise Broken(
                MONOTONIC_TERM,
                f"{node} goes back from term {node.term} to {term}",
                term=node.term,
            )
        node.term = term

    def elected(self, record: Record, event: LeaderElected) -> None:
        """Note what the voters promised: their term was durable when they voted."""
        assert record.term is not None
        for voter in event.votes:
            node = self._story.nodes.get(voter)
            if node is not None and not node.is_rebuilding:
                node.promised_term = max(node.promised_term, record.term)
