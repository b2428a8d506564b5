"""What the roles have in common: a role hears every message of its own term and every timer.

What does not depend on the role stands here once: the rules of voting (paper §5.4.1, thesis §9.6), and what every
node does that doesn't lead.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import attrs

from trio_kv.raft.entry import Command, LogPosition
from trio_kv.raft.errors import NotLeader, ReadOnly
from trio_kv.raft.events import PreVoteGranted, VoteGranted, VoteRefused
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendRejected,
    HeartbeatReply,
    InstallReply,
    Message,
    PreVoteReply,
    ReadIndex,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from trio_kv.raft.ready import ChunkRead, ChunkWasRead
from trio_kv.raft.state import NodeState


@attrs.frozen
class Follow:
    """Become a follower: in this term, or in a newer one."""

    term: int
    reason: str


@attrs.frozen
class Stand:
    """Become a candidate, or ask first whether one would win (a pre-vote)."""

    reason: str
    is_pre_vote: bool
    is_transfer: bool = False


@attrs.frozen
class Lead:
    """Become the leader of this term."""


Transition = Follow | Stand | Lead
"""What a role may ask for when it has done its part: the next role. `node.Raft` makes it (paper figure 4)."""


class Role:
    """A role of paper figure 4. Messages that a role has no use for are late, and are ignored."""

    name: ClassVar[str]

    def __init__(self, raft: NodeState) -> None:
        """Belong to a node. `become_*` of `node.Raft` makes roles, nobody else."""
        self.raft = raft
        self.deadline = float("inf")
        """When `on_timeout` wants to be called, in seconds of the driver's clock."""
        self.has_more = False
        """Whether there is more to send than the last pass had time for."""

    # What the driver asks for

    def propose(self, now: float, commands: Sequence[Command]) -> LogPosition | NotLeader | ReadOnly:
        """Take commands, if this is the leader."""
        return NotLeader(self.raft.leader)

    def transfer(self, now: float, target: int, *, reason: str) -> NotLeader | None:
        """Hand over, if this is the leader."""
        return NotLeader(self.raft.leader)

    def time_us(self, now: float) -> int:
        """Return cluster time, as far as this node knows."""
        return self.raft.known_time_us

    def ask_leader(self, now: float) -> None:
        """Put the question of all reads that wait to the leader, who is known."""
        raft = self.raft
        assert raft.leader is not None
        counter = raft.pending_reads.ask(now)
        raft.send(ReadIndex(*raft.header(raft.leader), raft.pending_reads.nonce, counter))

    def own_reads(self) -> list[Any]:
        """Return the contexts of the reads that this leader asked itself."""
        return []

    def snapshots_sent(self) -> set[LogPosition]:
        """Return (index, term) of the snapshots that are being sent."""
        return set()

    # What happens

    def is_answer_all(self, message: Message) -> bool:
        """Return whether nothing comes of a message but an answer that may leave at once, or not even that."""
        return False

    def on_timeout(self, now: float) -> Transition | None:
        """Do what is due."""
        return None

    def on_stored(self, now: float) -> Transition | None:
        """More of the log, or the hard state, became durable."""
        return None

    def on_chunk_read(self, now: float, read: ChunkRead, found: ChunkWasRead) -> None:
        """Take a chunk that was read for a follower."""

    def on_chunk_stored(self) -> None:
        """A chunk of a leader's snapshot was taken up, and another one is to come."""

    def on_installed(self) -> None:
        """All that a leader's snapshot holds is durable here."""

    def peer_said(self, message: Message) -> None:
        """Note what every message tells, whatever its term."""

    def on_install_reply(self, now: float, message: InstallReply) -> None:
        """Learn which chunk a follower wants next."""

    def on_append_accepted(self, now: float, message: AppendAccepted) -> None:
        """Learn how far a follower is."""

    def on_append_rejected(self, now: float, message: AppendRejected) -> None:
        """Learn where a follower's log parts from ours."""

    def on_heartbeat_reply(self, now: float, message: HeartbeatReply) -> None:
        """Learn that a follower still follows."""

    def on_pre_vote_reply(self, message: PreVoteReply) -> Transition | None:
        """Count a pre-vote."""
        return None

    def on_vote_reply(self, message: VoteReply) -> Transition | None:
        """Count a vote."""
        return None

    def on_read_index(self, now: float, message: ReadIndex) -> None:
        """Be asked how far one must have applied to read."""

    def on_request_pre_vote(self, now: float, message: RequestPreVote) -> None:
        """Say whether a vote would be given, and change nothing (thesis §9.6)."""
        raft = self.raft
        reason = "hears a leader" if self.hears_leader(now) else self._reason_against(message)
        if reason:
            self.emit_refused(message, reason)
        else:
            raft.emit(PreVoteGranted(message.source))
        reply = PreVoteReply(*raft.header(message.source), message.term, not reason)
        raft.send(reply, waits_for_disk=True)

    def on_request_vote(self, now: float, message: RequestVote) -> None:
        """Give a vote once a term, to a log that lacks nothing committed (paper §5.4.1)."""
        raft = self.raft
        if raft.vote is not None and raft.vote != message.source:
            reason = f"voted for {raft.vote}"
        elif raft.leader is not None:
            reason = f"{raft.leader} leads this term"
        else:
            reason = self._reason_against(message)
        if reason:
            self.emit_refused(message, reason)
        else:
            raft.vote = message.source
            raft.emit(VoteGranted(message.source))
            self.restart_timer(now)
        reply = VoteReply(*raft.header(message.source), not reason, raft.incarnations(), raft.heard_time)
        raft.send(reply, waits_for_disk=True)

    def _reason_against(self, message: RequestVote | RequestPreVote) -> str:
        """Return why this node may elect nobody, or not this candidate; empty if it may."""
        if self.raft.is_rebuilding:
            return "is being rebuilt"
        is_up_to_date = self.raft.log.is_up_to_date(message.last_index, message.last_term)
        return "" if is_up_to_date else "log is behind"

    def emit_refused(self, message: RequestVote | RequestPreVote, reason: str) -> None:
        """Let listeners know why a vote is refused."""
        if self.raft.wants_debug:
            self.raft.emit(VoteRefused(message.source, isinstance(message, RequestPreVote), reason))

    def restart_timer(self, now: float) -> None:
        """Wait a whole election time-out: a candidate that was given a vote needs time to win."""

    def on_timeout_now(self, message: TimeoutNow) -> Transition | None:
        """Be asked to take over."""
        return None

    def replicate(self, now: float) -> None:
        """Send what followers lack of the log, the commit index and the rounds, if this is the leader."""

    def hears_leader(self, now: float) -> bool:
        """Return whether a vote now would disturb a leader that works (thesis §6.4.1, §9.6)."""
        return now < self.raft.heard_leader_at + self.raft.config.election_timeout_min_s

    def note_incarnations(self, heard: Iterable[tuple[int, int]]) -> None:
        """Note (node, incarnation) wherever it was heard of: in a message, or when a link was made."""
        for peer, incarnation in heard:
            if self.raft.note_incarnation(peer, incarnation):
                self.peer_was_replaced(peer)

    def peer_was_replaced(self, peer: int) -> None:
        """Forget what a peer said before it came back with another disk."""

    def leave(self) -> None:
        """Give back what a later role must go on with."""

    def copy(self, raft: NodeState) -> Self:
        """Return an equal role for a copy of the node."""
        twin = copy.copy(self)
        twin.raft = raft
        return twin
