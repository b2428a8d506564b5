"""Followers that no commit waits for (decision 0055)."""

import copy
from collections.abc import Collection, Mapping
from typing import Self

from trio_kv.raft.progress import Progress
from trio_kv.raft.state import NodeState

NEAR_HEARTBEATS = 2
"""A follower nearby that was not heard for so many heartbeats is no better than others."""
QUICK_SHARE = 3
"""Those nearby are quick if a write takes them no more than such a part of the time that others wait."""


class Spares:
    """Whom a leader is in no hurry to serve.

    A commit takes the quickest majority. While a leader and followers nearby are one, and all of them quick, whoever is
    further away comes too late for each. To send such a follower what it lacks entry by entry costs the leader as much
    as sending it to those who matter. So what is new waits for `RaftConfig.spare_delay_s`, and goes out together with
    what has gathered; from then on it waits no more, however long it takes to be sent. As soon as one of those nearby
    is silent or slow, nobody is a spare one.

    This is about speed alone: a leader may send entries as late as it likes, as safety rests on no time (paper §5.6).

    Args:
        raft: the leader.

    """

    def __init__(self, raft: NodeState) -> None:
        """Nobody waits yet; see the class."""
        self._raft = raft
        is_possible = raft.config.spare_delay_s > 0 and raft.voters.has_majority([raft.id, *raft.near])
        self._far = tuple(peer for peer in raft.peers if peer not in raft.near) if is_possible else ()
        self._quick_s = raft.config.spare_delay_s / QUICK_SHARE
        self.waiting: Collection[int] = ()
        """Those for whom there is something new that they are not sent yet."""
        self.due_at = float("inf")
        """When they are."""
        self._due_index = 0
        """Entries up to here wait for nothing any more."""
        self._own_took_s = 0.0

    def look(self, now: float, progress: Mapping[int, Progress]) -> Collection[int]:
        """Return who may wait, in the pass that begins now."""
        if not self._far:
            return ()
        last, due = self._raft.log.last_index, self._due_index
        far = [
            peer for peer in self._far if progress[peer].is_replicating and due < progress[peer].next <= last
        ]
        if far and now < self.due_at and self._are_others_enough(now, progress):
            self.waiting, self.due_at = far, min(self.due_at, now + self._raft.config.spare_delay_s)
        else:
            if far:
                self._due_index = last
            self.waiting, self.due_at = (), float("inf")
        return self.waiting

    def hurry(self, now: float, peer: int) -> None:
        """Let nobody wait for what there is in the next pass, if `peer` could: somebody waits for it."""
        if peer in self._far:
            self.due_at = min(self.due_at, now)

    def own_disk_took(self, took_s: float) -> None:
        """Note how long the last write of this node's own disk took."""
        self._own_took_s = took_s

    def _are_others_enough(self, now: float, progress: Mapping[int, Progress]) -> bool:
        """Return whether this node and those nearby commit, and soon."""
        raft, quick_s = self._raft, self._quick_s
        disk = raft.persistence
        waits_s = 0.0 if disk.oldest_write_at is None else now - disk.oldest_write_at
        if max(waits_s, self._own_took_s) >= quick_s or disk.free_log_bytes is not None:
            # With a full disk it hands over, to one that has all of the log, and so has a majority.
            return False
        lives_since = now - NEAR_HEARTBEATS * raft.config.heartbeat_interval_s
        quick = [
            peer
            for peer in raft.near
            if peer in progress
            and progress[peer].heard_at >= lives_since
            and progress[peer].is_quick(now, raft.commit, quick_s)
        ]
        return raft.voters.has_majority([raft.id, *quick])

    def copy(self, raft: NodeState) -> Self:
        """Return an equal one for a copy of the node."""
        twin = copy.copy(self)
        twin._raft = raft  # noqa: SLF001 - a twin of this class
        return twin
