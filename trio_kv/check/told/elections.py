"""Election safety (paper figure 3, §5.2), and what keeps it: one vote a term, majorities, up-to-date logs (§5.4.1)."""

from trio_kv.check.told.broken import Broken, Record
from trio_kv.check.told.contents import Recent
from trio_kv.check.told.story import Story
from trio_kv.raft.entry import LogPosition
from trio_kv.raft.events import ElectionStarted, LeaderElected, VoteGranted
from trio_kv.trace.vocabulary import ClusterStarted

ELECTION_SAFETY = "election safety"
LEADER_COMPLETENESS = "leader completeness"


class Elections:
    """Knows who led each term, who stood for election with which log, and who voted for whom."""

    def __init__(self, story: Story) -> None:
        """Know of no election."""
        self._story = story
        self._forget()

    def _forget(self) -> None:
        self._leaders: dict[int, tuple[int, Record]] = {}
        self._stood: Recent[tuple[int, int], LogPosition] = Recent()
        """(term, candidate) -> the end of its log."""
        self._votes: Recent[tuple[int, int], tuple[int, int, int | None, Record]] = Recent()
        """(term, voter) -> whom it voted for, in which of its lives, of which incarnation."""

    def cluster_started(self, record: Record, event: ClusterStarted) -> None:
        """Begin anew with another cluster."""
        del record
        if self._story.cluster not in {None, event.cluster}:
            self._forget()

    def stood(self, record: Record, event: ElectionStarted) -> None:
        """Note a candidate's log, and that it votes for itself."""
        del event
        node = self._story.of(record)
        assert record.term is not None
        if node.is_known:
            self._stood.put((record.term, node.node), node.end)
        self._vote(record, node.node)

    def vote_granted(self, record: Record, event: VoteGranted) -> None:
        """Refuse a second vote in a term, and one for a log that lacks something."""
        node = self._story.of(record)
        self._vote(record, event.candidate)
        theirs = self._stood.get((record.term or 0, event.candidate))
        if theirs is None or not node.is_known:
            return
        if (theirs.term, theirs.index) < (node.end.term, node.end.index):
            raise Broken(
                ELECTION_SAFETY,
                f"{node} votes in term {record.term} for n{event.candidate}, whose log ends at {theirs}, though its own"
                f" goes to {node.end}",
                term=record.term,
                index=node.end.index,
            )

    def _vote(self, record: Record, candidate: int) -> None:
        """Note a vote. One that was never durable may be given anew after a restart, if nobody was elected by it."""
        node, term = self._story.of(record), record.term
        assert term is not None
        before = self._votes.get((term, node.node))
        self._votes.put((term, node.node), (candidate, node.life, node.incarnation, record))
        if before is None or before[0] == candidate:
            return
        known, life, incarnation, earlier = before
        leader, elected = self._leaders.get(term, (None, None))
        is_counted = leader == known and elected is not None and node.node in _votes_of(elected)
        if incarnation == node.incarnation and (is_counted or (life == node.life and node.is_known)):
            raise Broken(
                ELECTION_SAFETY,
                f"{node} votes twice in term {term}: for n{known}, and now for n{candidate}",
                term=term,
                earlier=[earlier],
            )

    def elected(self, record: Record, event: LeaderElected) -> None:
        """Refuse a second leader of a term, and one without a majority."""
        term, leader = record.term, record.node
        assert term is not None
        assert leader is not None
        known, earlier = self._leaders.setdefault(term, (leader, record))
        if earlier is not record:
            again = f"n{leader} is elected in it for the second time" if known == leader else ""
            raise Broken(
                ELECTION_SAFETY,
                f"term {term}: {again}"
                if again
                else f"term {term} has two leaders: n{known}, and now n{leader}",
                term=term,
                earlier=[earlier],
            )
        self._count(event.votes, term, leader)

    def _count(self, votes: tuple[int, ...], term: int, leader: int) -> None:
        story = self._story
        if story.voters is None:
            return
        if leader not in votes or not story.voters.has_majority(votes):
            raise Broken(
                ELECTION_SAFETY,
                f"n{leader} leads term {term} with the votes of {_names(votes)}, which is no majority of"
                f" {_names(story.members)}",
                term=term,
            )
        if story.has_gap or story.absent:
            return
        for voter in votes:
            vote = self._votes.get((term, voter))
            if vote is None or vote[0] != leader:
                given = "gave none" if vote is None else f"voted for n{vote[0]}"
                raise Broken(
                    ELECTION_SAFETY,
                    f"n{leader} leads term {term} by a vote of n{voter}, who {given} in it",
                    term=term,
                    earlier=[] if vote is None else [vote[3]],
                )


class LeaderCompleteness:
    """An entry committed in a term is in the logs of the leaders of all later terms (paper §5.4.3)."""

    def __init__(self, story: Story) -> None:
        """Know of no leader."""
        self._story = story
        self._forget()

    def _forget(self) -> None:
        self._newest_term = 0
        self._logs: dict[int, tuple[LogPosition, Record]] = {}
        """With which log each leader began."""
        self._committed: dict[int, tuple[LogPosition, Record]] = {}
        """By term, in their order: how far its leader committed."""

    def cluster_started(self, record: Record, event: ClusterStarted) -> None:
        """Begin anew with another cluster."""
        del record
        if self._story.cluster not in {None, event.cluster}:
            self._forget()

    def elected(self, record: Record, event: LeaderElected) -> None:
        """Compare a new leader's log with what earlier ones committed."""
        del event
        node, term = self._story.of(record), record.term
        assert term is not None
        if not node.is_known:
            return
        self._logs[term] = node.end, record
        self._newest_term = max(self._newest_term, term)
        for earlier in reversed(self._committed):
            if earlier < term:
                self._compare(term, node.end, *self._committed[earlier])
                break

    def leader_committed(self, place: LogPosition, term: int, record: Record) -> None:
        """Note how far a leader committed, and compare it with leaders of later terms that are there already."""
        self._committed[term] = place, record
        if term >= self._newest_term:
            return
        for later, (end, elected) in self._logs.items():
            if later > term:
                self._compare(later, end, place, elected)

    def _compare(self, term: int, end: LogPosition, place: LogPosition, other: Record) -> None:
        if self._story.terms.holds(end, place) is False:
            raise Broken(
                LEADER_COMPLETENESS,
                f"the leader of term {term} began with a log that ends at {end} and lacks {place}, which was committed"
                " in an earlier term",
                index=place.index,
                term=term,
                earlier=[other],
            )


def _votes_of(record: Record) -> tuple[int, ...]:
    return record.event.votes if isinstance(record.event, LeaderElected) else ()


def _names(nodes: tuple[int, ...]) -> str:
    return ", ".join(f"n{node}" for node in nodes)
