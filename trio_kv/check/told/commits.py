"""What is committed, answered and applied: in order, once, and only what a majority has on its disks."""

from trio_kv.check.told.broken import Broken, Record
from trio_kv.check.told.contents import Recent
from trio_kv.check.told.elections import LeaderCompleteness
from trio_kv.check.told.story import NodeStory, Story
from trio_kv.raft.entry import LogPosition
from trio_kv.raft.events import EntriesCommitted
from trio_kv.trace.vocabulary import (
    ClusterStarted,
    EntriesApplied,
    NodeStarted,
    SnapshotTaken,
    WritesAnswered,
)

STATE_MACHINE_SAFETY = "state-machine safety"
COMMIT = "monotonic commit"
COMMIT_RULE = "commit rule"
MAJORITY = "durable on a majority"
APPLIED = "monotonic applied"


class Commits:
    """Judges each move of a commit index (paper §5.3, §5.4.2)."""

    def __init__(self, story: Story, completeness: LeaderCompleteness) -> None:
        """Know nothing committed; `completeness` is told what leaders commit."""
        self._story = story
        self._completeness = completeness

    def committed_to(self, record: Record, event: EntriesCommitted) -> None:
        """Judge where it goes, what is there, and who has it."""
        story, place = self._story, LogPosition(event.last, event.last_term)
        node = story.of(record)
        if node.is_known:
            self._judge_place(node, event, place)
        known = story.committed
        longer, shorter = (place, known) if place.index >= known.index else (known, place)
        if story.terms.holds(longer, shorter) is False:
            raise Broken(
                STATE_MACHINE_SAFETY,
                f"{node} committed {place}, which contradicts {known}: that was committed before",
                index=shorter.index,
                term=event.last_term,
            )
        if record.role == "leader":
            self._judge_leader(record, node, place)
        elif place.index > known.index and story.is_commit_known and not (story.has_gap or story.absent):
            raise Broken(
                COMMIT_RULE,
                f"{node} takes {place} as committed, though no leader has committed more than {known}",
                index=place.index,
                term=record.term,
            )

    def _judge_place(self, node: NodeStory, event: EntriesCommitted, place: LogPosition) -> None:
        if event.first != node.commit + 1 or event.last < event.first:
            raise Broken(
                COMMIT,
                f"{node} moves its commit index by {event.first}..{event.last}, though it was {node.commit}",
                index=event.last,
            )
        if self._story.terms.holds(node.end, place) is False:
            raise Broken(
                COMMIT,
                f"{node} committed {place}, which is not in its log: that ends at {node.end}",
                index=event.last,
                term=event.last_term,
            )

    def _judge_leader(self, record: Record, node: NodeStory, place: LogPosition) -> None:
        assert record.term is not None
        if place.term != record.term:
            raise Broken(
                COMMIT_RULE,
                f"{node} leads term {record.term} and committed {place} by counting (paper §5.4.2)",
                index=place.index,
                term=record.term,
            )
        require_majority(self._story, place, f"{node} committed it")
        self._completeness.leader_committed(place, record.term, record)


def require_majority(story: Story, place: LogPosition, why: str) -> None:
    """Refuse that the loss of a minority of the disks loses this entry, if it is known what they hold.

    Raises:
        Broken: no majority holds it.

    """
    holders = story.holders(place)
    if holders is not None and story.voters is not None and not story.voters.has_majority(holders):
        names = ", ".join(f"n{node}" for node in sorted(holders)) or "no node"
        raise Broken(
            MAJORITY,
            f"{place} is durable on {names} only, of {len(story.members)}, when {why}",
            index=place.index,
            term=place.term,
        )


class Machines:
    """Judges what is applied and answered: State Machine Safety (paper figure 3), by the digests that nodes tell."""

    def __init__(self, story: Story) -> None:
        """Know no state."""
        self._story = story
        self._forget()
        self.compared = 0
        """How many states were compared."""

    def _forget(self) -> None:
        self._digests: Recent[int, tuple[int, int, Record]] = Recent()
        """Index -> the digest of the entries up to it, and that of the state after it."""

    def cluster_started(self, record: Record, event: ClusterStarted) -> None:
        """Begin anew with another cluster."""
        del record
        if self._story.cluster not in {None, event.cluster}:
            self._forget()

    def started(self, record: Record, event: NodeStarted) -> None:
        """Compare the state of a snapshot."""
        if event.entries_digest is not None and event.state_digest is not None and event.log_first > 1:
            self._compare(record, event.log_first - 1, event.entries_digest, event.state_digest)

    def applied(self, record: Record, event: EntriesApplied) -> None:
        """Judge where it goes, what is there, and what came of it."""
        node, place = self._story.of(record), LogPosition(event.last, event.last_term)
        if node.is_known:
            if event.first != node.applied + 1 or event.last < event.first:
                raise Broken(
                    APPLIED,
                    f"{node} applied {event.first}..{event.last}, though it had applied up to {node.applied}",
                    index=event.first,
                )
            if event.last > node.commit:
                raise Broken(
                    APPLIED,
                    f"{node} applied up to {event.last}, though it knows only {node.commit} to be committed",
                    index=event.last,
                )
            if self._story.terms.holds(node.end, place) is False:
                raise Broken(
                    STATE_MACHINE_SAFETY,
                    f"{node} applied {place}, which is not in its log: that ends at {node.end}",
                    index=event.last,
                    term=event.last_term,
                )
        self._compare(record, event.last, event.entries_digest, event.state_digest)

    def _compare(self, record: Record, index: int, entries: int, state: int) -> None:
        known = self._digests.get(index)
        if known is None:
            self._digests.put(index, (entries, state, record))
            return
        self.compared += 1
        if known[:2] != (entries, state):
            what = "other entries" if known[0] != entries else "the same entries with another outcome"
            raise Broken(
                STATE_MACHINE_SAFETY,
                f"n{record.node} applied {what} up to {index} than n{known[2].node}:"
                f" digests {entries:08x} {state:08x}, not {known[0]:08x} {known[1]:08x}",
                index=index,
                earlier=[known[2]],
            )

    def answered(self, record: Record, event: WritesAnswered) -> None:
        """Refuse an answer that a crash of a minority could make untrue."""
        node = self._story.of(record)
        if not node.is_known:
            return
        if event.last > node.applied:
            raise Broken(
                APPLIED,
                f"{node} answers writes up to {event.last}, though it has applied up to {node.applied}",
                index=event.last,
            )
        term = self._story.terms.term_at(node.end, event.last)
        if term is not None:
            require_majority(self._story, LogPosition(event.last, term), f"{node} answered the writes in it")

    def snapshot_taken(self, record: Record, event: SnapshotTaken) -> None:
        """Refuse a snapshot of what was not committed."""
        story, place = self._story, LogPosition(event.index, event.index_term)
        is_news = event.index > story.committed.index
        is_judged = story.is_commit_known and not (story.has_gap or story.absent)
        if (is_news and is_judged) or (not is_news and story.terms.holds(story.committed, place) is False):
            raise Broken(
                STATE_MACHINE_SAFETY,
                f"n{record.node} has a snapshot up to {place}, and what is committed ends at {story.committed}",
                index=event.index,
                term=event.index_term,
            )
