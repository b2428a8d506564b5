"""Turns: what of the nodes of a process only one may do at a time, so that the others stay quick.

A turn is a lease. Who has it renews it by getting on, and as long as that goes nobody takes it away, however slow it
is. Who gets nowhere for as long as the lease - its disk hangs, its node is paused - loses it to the next that waits,
and asks anew when it moves again: **a disk that hangs harms its node alone**.

Pure: `now` is an argument, in seconds of a clock that all of these nodes share (their own may be skewed).
"""

import attrs

SNAPSHOT_LEASE_S = 0.25
"""A node whose snapshot gets nowhere for so long gives its turn to the next one: its disk hangs, or it is paused. It
goes on when it moves again, so that a disk that was only slow loses little by it."""


@attrs.define
class _Wait:
    rank: tuple[int, int]
    """(what was given, the how manieth to ask)"""
    asked_at: float


@attrs.define
class Turns:
    """Whose turn it is, and who waits.

    Invariant: one node at most has the turn. It is taken from it by nobody but the next one, after the lease.
    """

    lease_s: float
    """Who has the turn loses it after so long without progress, if somebody waits."""
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

        Who waits asks again and again: who did not for as long as the lease is passed over.

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
        """Note that a node got on. It changes nothing if it lost the turn."""
        if self.holder == node:
            self._until = now + self.lease_s

    def give_back(self, node: int) -> None:
        """End a node's turn, or its wait."""
        if self.holder == node:
            self.holder = None
        if self._waiting:
            self._waiting.pop(node, None)

    def _first(self, now: float) -> int:
        """Return who is next; whoever asks just now is there, so there is one."""
        there = [node for node, wait in self._waiting.items() if now - wait.asked_at <= self.lease_s]
        return min(there, key=lambda node: self._waiting[node].rank)
