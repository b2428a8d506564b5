"""What a node may leave lying for a moment, because it could not act on it yet.

A pass costs much more than what one message asks of it. While a leader needs three more acknowledgements before
anything can be committed, the first two change nothing that anybody waits for. So a node is woken by what it can act
on, and takes the rest along.

It is a hint, and never a rule: whoever heeds it takes all that lies there after `PATIENCE_S` at the latest, and a node
that is woken too early does nothing wrong. So each number here may be too low, and none too high.
"""

from typing import Any, Final

from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import AppendAccepted, HeartbeatReply, ReadIndex
from trio_kv.raft.node import Raft
from trio_kv.replica.jobs import Stored
from trio_kv.wire.node_port import Propose, Pull, Read

PATIENCE_S: Final = 0.01
"""How long something lies at most."""


class Patience:
    """How much of what comes next a node can't act on, counted down as it comes.

    Args:
        raft: the node, after a pass.
        proposals_missing: it gathers proposals, and can act on them when so many have come; 0: it does not.

    """

    __slots__ = (
        "_acks",
        "_delivered",
        "_hasty",
        "_is_asking",
        "_is_committing",
        "_is_questioned",
        "_proposals",
        "_replies",
    )

    def __init__(self, raft: Raft, proposals_missing: int = 0) -> None:
        """Look at what the node waits for; see the class."""
        self._proposals = proposals_missing
        role = raft.role
        self._delivered = raft.delivered
        self._acks = self._replies = 1
        """The how-manieth acknowledgement of the log, or reply to a heartbeat round, the node can act on."""
        self._hasty: frozenset[int] = frozenset()
        """Followers each of whose acknowledgements lets the leader send more."""
        self._is_committing = self._is_questioned = is_confirming = False
        """Whether new writes, or questions, go on with the next commit, or the next confirmed round."""
        if isinstance(role, Leader):
            self._acks, self._replies = role.acks_missing(), role.replies_missing()
            self._hasty = role.hasty_followers()
            self._is_committing = raft.is_committing
            is_confirming = bool(role.rounds.pending)
            # Of three, leader and asker are a majority, and the question needs no round.
            self._is_questioned = is_confirming and raft.voters.missing([raft.id]) > 1
        self._is_asking = is_confirming or (raft.leader is not None and bool(raft.pending_reads.asked))
        """Whether new reads go on with the answer to the question that is under way."""

    def is_over(self, item: Any) -> bool:  # noqa: PLR0911 - one line a kind of item
        """Take note of what came; return whether the node has to look now."""
        kind = type(item)
        if kind is AppendAccepted:
            self._acks -= 1
            return self._acks <= 0 or item.source in self._hasty
        if kind is HeartbeatReply:
            self._replies -= 1
            return self._replies <= 0
        if kind is Stored:
            self._acks -= 1
            return self._acks <= 0
        if kind is Propose:
            self._proposals -= 1
            return self._proposals <= 0 and not self._is_committing
        if kind is Read:
            return item.is_stale or not self._is_asking
        if kind is Pull:
            # What lies here is answered by the pass that applies something.
            return bool(item.after < self._delivered)
        return kind is not ReadIndex or not self._is_questioned
