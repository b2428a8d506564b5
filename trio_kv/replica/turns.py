"""Turns: some work only one node of a process does at a time, so that the others stay quick.

A turn is a lease. A node that makes progress renews its turn, and keeps it however slow it is. A node that makes no
progress for the length of the lease, because its disk hangs or it is paused, loses its turn to the next one that waits.
It asks anew when it makes progress again. So **a disk that hangs harms its node alone**.

Pure: `now` is an argument, in seconds of a clock that all of these nodes share (their own may be skewed).
"""

import attrs

SNAPSHOT_LEASE_S = 0.25
"""A node whose snapshot makes no progress for so long loses its turn: its disk hangs, or it is paused. It goes on when
its disk works again, so one that was only slow loses little."""


@attrs.define
class _Wait:
    rank: tuple[int, int]
    """(the rank given to `take`, a number that rises with each node that asks)"""
    asked_at: float


@attrs.define
class Turns:
    """Whose turn it is, and who waits.

    Invariant: one node at most has the turn. Only the next node takes it away, and only after the lease.
    """

    lease_s: float
    """A node loses its turn after so long without progress, if another one waits."""
    holder: int | None = None
    """The node whose turn it is."""
    _until: float = 0.0
    _asked: int = 0
    _waiting: dict[int, _Wait] = attrs.field(factory=dict)

    def ask(self, now: float, node: int, rank: int = 0) -> None:
        """Queue for the turn, or go on waiting for it, and do not take it yet. Arguments as for `take`."""
        wait = self._waiting.get(node)
        if wait is None:
            self._asked += 1
            wait = self._waiting[node] = _Wait((rank, self._asked), now)
        wait.asked_at = now

    def take(self, now: float, node: int, rank: int = 0) -> bool:
        """Ask for the turn, or renew it; return whether the node has it.

        A node that waits asks again and again; one that did not for the length of the lease is passed over.

        Args:
            now: the time.
            node: who asks.
            rank: lower ones go first, equal ones in the order in which they asked.

        """
        if self.holder == node:
            self._until = now + self.lease_s
            return True
        self.ask(now, node, rank)
        if (self.holder is not None and now < self._until) or self._first(now) != node:
            return False
        del self._waiting[node]
        self.holder, self._until = node, now + self.lease_s
        return True

    def renew(self, now: float, node: int) -> None:
        """Note that a node made progress. It changes nothing if the node has lost its turn."""
        if self.holder == node:
            self._until = now + self.lease_s

    def give_back(self, node: int) -> None:
        """End a node's turn, or its wait."""
        if self.holder == node:
            self.holder = None
        if self._waiting:
            self._waiting.pop(node, None)

    def _first(self, now: float) -> int:
        """Return the next node. There is one, as this is called for a node that asks just now."""
        there = [node for node, wait in self._waiting.items() if now - wait.asked_at <= self.lease_s]
        return min(there, key=lambda node: self._waiting[node].rank)
