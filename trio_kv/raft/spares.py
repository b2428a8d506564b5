"""Followers that no commit waits for (decision 0055)."""

import copy
from collections.abc import Collection, Mapping
from typing import Self

from trio_kv.raft.progress import Progress
from trio_kv.raft.state import NodeState

NEAR_HEARTBEATS = 2
"""A follower nearby that was not heard for so many heartbeats is no better than others."""


class Spares:
    """Whom a leader is in no hurry to serve.

    A commit takes the quickest majority. While a leader and followers nearby are one, and all of them quick, whoever is
    further away comes too late for each. To send such a follower what it lacks entry by entry costs the leader as much
    as sending it to those who matter. So it gets together what has gathered in `RaftConfig.spare_delay_s`. As soon as
    one of those nearby is silent or slow, nobody is a spare one.

    This is about speed alone: a leader may send entries as late as it likes (paper §5.5).

    Args:
        raft: the leader.

    """

    def __init__(self, raft: NodeState) -> None:
        """Nobody waits yet; see the class."""
        self._raft = raft
        is_possible = raft.config.spare_delay_s > 0 and raft.voters.has_majority([raft.id, *raft.near])
        self._far = tuple(peer for peer in raft.peers if peer not in raft.near) if is_possible else ()
        self.waiting: Collection[int] = ()
        """Those who lack entries, and are sent none yet."""
        self.due_at = float("inf")
        """When they are."""

    def look(self, now: float, progress: Mapping[int, Progress]) -> Collection[int]:
        """Return who may wait, in the pass that begins now."""
        if not self._far:
            return ()
        last = self._raft.log.last_index
        far = [peer for peer in self._far if progress[peer].is_replicating and progress[peer].next <= last]
        if far and now < self.due_at and self._are_others_enough(now, progress):
            self.waiting, self.due_at = far, min(self.due_at, now + self._raft.config.spare_delay_s)
        else:
            self.waiting, self.due_at = (), float("inf")
        return self.waiting

    def hurry(self, now: float) -> None:
        """Let those who wait be sent what they lack in the next pass."""
        if self.waiting:
            self.due_at = min(self.due_at, now)

    def _are_others_enough(self, now: float, progress: Mapping[int, Progress]) -> bool:
        """Return whether this node and those nearby commit, and soon."""
        raft, config = self._raft, self._raft.config
        oldest_at = raft.persistence.oldest_write_at
        if oldest_at is not None and now - oldest_at >= config.spare_delay_s:
            return False
        lives_since = now - NEAR_HEARTBEATS * config.heartbeat_interval_s
        quick = [
            peer
            for peer in raft.near
            if peer in progress
            and progress[peer].heard_at >= lives_since
            and progress[peer].is_quick(now, raft.commit, config.spare_delay_s)
        ]
        return raft.voters.has_majority([raft.id, *quick])

    def copy(self, raft: NodeState) -> Self:
        """Return an equal one for a copy of the node."""
        twin = copy.copy(self)
        twin._raft = raft  # noqa: SLF001 - a twin of this class
        return twin
