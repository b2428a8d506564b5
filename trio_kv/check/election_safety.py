"""Election Safety: at most one leader can be elected in a given term (paper figure 3, §5.2).

Over all history, restarts included. A vote is given once a term, also across restarts (paper §5.2, scenario D1);
that is judged by what voters tell others: what nobody heard of can't be counted twice.
"""

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.messages import Message, RequestVote, VoteReply


class ElectionSafety(Judge):
    """Knows who led each term and whom each node said it votes for."""

    def __init__(self) -> None:
        """Know of no election."""
        self.leaders: dict[int, int] = {}
        self._seen: set[tuple[int, int]] = set()
        """(term, leader), each once."""
        self.votes: dict[tuple[int, int, int], int] = {}
        """(term, voter, its incarnation) -> candidate."""
        self.candidates: dict[int, set[int]] = {}

    def elected(self, view: View) -> None:
        """Compare with who led this term before."""
        leader = self.leaders.setdefault(view.term, view.id)
        if leader != view.id:
            raise Violation(f"term {view.term} has two leaders: node {leader}, and now {view}")
        if (view.term, view.id) in self._seen:
            raise Violation(f"{view} is elected in term {view.term} for the second time")
        self._seen.add((view.term, view.id))

    def sent(self, node: int, message: Message) -> None:
        """Compare a vote with what was told before."""
        if isinstance(message, VoteReply) and message.is_granted:
            self._vote(message, message.target)
        elif isinstance(message, RequestVote):
            self._vote(message, node)
            self.candidates.setdefault(message.term, set()).add(node)

    def split_votes(self) -> int:
        """Return in how many terms several nodes stood for election and none won."""
        return sum(len(nodes) > 1 and term not in self.leaders for term, nodes in self.candidates.items())

    def _vote(self, message: Message, candidate: int) -> None:
        voter, term = message.source, message.term
        if message.is_rebuilding:
            raise Violation(f"{message} left, although its sender is being rebuilt")
        known = self.votes.setdefault((term, voter, message.incarnation), candidate)
        if known != candidate:
            raise Violation(f"node {voter} votes twice in term {term}: for {known}, and now for {candidate}")
