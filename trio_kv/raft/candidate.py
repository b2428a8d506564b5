"""The candidate: collects votes (paper §5.2), after having asked whether it would get them (thesis §9.6)."""

from typing import Self

from trio_kv.raft.messages import PreVoteReply, RequestPreVote, RequestVote, VoteReply
from trio_kv.raft.role import Lead, Role, Stand, Transition
from trio_kv.raft.state import NodeState


class Candidate(Role):
    """Stands for election. As long as it is a pre-candidate it changes no term, neither its own nor others'."""

    def __init__(
        self, raft: NodeState, now: float, reason: str, *, is_pre_vote: bool, is_transfer: bool
    ) -> None:
        """Begin to collect votes; an election that has no winner is begun anew after another time-out."""
        super().__init__(raft)
        self.reason = reason
        """Why it stands, or asks whether it would win: the election has the reason of its pre-vote."""
        self.is_pre_vote = is_pre_vote
        self.is_transfer = is_transfer
        self.pre_votes: set[int] = {raft.id}
        config = raft.config
        spread_s = config.election_timeout_max_s - config.election_timeout_min_s
        self.deadline = now + config.election_timeout_min_s + raft.random.random() * spread_s

    @property
    def name(self) -> str:  # type: ignore[override]
        """The role's name in events."""
        return "pre_candidate" if self.is_pre_vote else "candidate"

    def ask(self) -> None:
        """Ask all others for their votes. The request for a real vote leaves once the own vote is durable."""
        raft, log = self.raft, self.raft.log
        for peer in raft.peers:
            if self.is_pre_vote:
                raft.send(RequestPreVote(*raft.header(peer), log.last_index, log.last_term))
            else:
                request = RequestVote(*raft.header(peer), log.last_index, log.last_term, self.is_transfer)
                raft.send(request, waits_for_disk=True)

    def on_timeout(self, now: float) -> Transition | None:
        """Begin again: the vote was split, or nobody answered. A disk that is slow to store the term gets more time."""
        if self.raft.persistence.durable_term != self.raft.term:
            # Another term would only queue another write behind the one that is late.
            self.deadline = now + self.raft.config.election_timeout_min_s
            return None
        return Stand("no majority in time", is_pre_vote=True)

    def on_stored(self, now: float) -> Transition | None:  # noqa: ARG002 - as the other roles
        """Count the own vote as any other: now that it can't be forgotten (scenario D1)."""
        if self.raft.vote == self.raft.id and self.raft.persistence.durable_term == self.raft.term:
            return self._count_vote(self.raft.id)
        return None

    def on_pre_vote_reply(self, message: PreVoteReply) -> Transition | None:
        """Count a pre-vote, if it answers what is asked now."""
        if self.is_pre_vote and message.is_granted and message.asked_term == self.raft.term:
            self.pre_votes.add(message.source)
            return self.maybe_stand()
        return None

    def on_vote_reply(self, message: VoteReply) -> Transition | None:
        """Count a vote of this term, also when the next pre-vote has begun: on slow disks votes come late."""
        self.note_incarnations(message.incarnations)
        self.raft.hear_time(message.heard_time)
        return self._count_vote(message.source) if message.is_granted else None

    def maybe_stand(self) -> Transition | None:
        """Stand for election, if a majority would vote for this node."""
        if self.is_pre_vote and self.raft.voters.has_majority(self.pre_votes):
            return Stand(self.reason, is_pre_vote=False)
        return None

    def peer_was_replaced(self, peer: int) -> None:
        """Forget the pre-vote of a node that came back with another disk."""
        self.pre_votes.discard(peer)

    def _count_vote(self, voter: int) -> Transition | None:
        if self.raft.standing_term != self.raft.term:
            return None  # It led this term already, or asked for these votes before it was restarted.
        self.raft.votes.add(voter)
        return Lead() if self.raft.voters.has_majority(self.raft.votes) else None

    def copy(self, raft: NodeState) -> Self:
        """Return an equal candidate for a copy of the node."""
        twin = super().copy(raft)
        twin.pre_votes = self.pre_votes.copy()
        return twin
